rule samples_shard:
    output:
        "shards/samples-{arm}.safetensors",
    log:
        "logs/samples-{arm}.log",
    params:
        root=ROOT,
        out=lambda wildcards, output: Path(output[0]).resolve(),
        log=lambda wildcards: Path(f"logs/samples-{wildcards.arm}.log").resolve(),
    # Arms are timed: each has the machine for itself.
    threads: workflow.cores
    shell:
        "cd {params.root:q} && python workflow/scripts/samples.py {wildcards.arm} {params.out:q} > {params.log:q} 2>&1"
