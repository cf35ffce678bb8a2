rule samples_shard:
    output:
        "shards/samples-{arm}.safetensors",
    log:
        "logs/samples-{arm}.log",
    conda:
        "../envs/filmstill.yaml"
    # Arms are timed: each has the machine for itself, or its job's cores (`exclusive` of cluster.yaml: the node).
    threads: CPUS or workflow.cores
    params:
        root=ROOT,
        python=PYTHON,
        out=lambda wildcards, output: Path(output[0]).resolve(),
        log=lambda wildcards: Path(f"logs/samples-{wildcards.arm}.log").resolve(),
    shell:
        "cd {params.root:q} && {params.python} workflow/scripts/samples.py {wildcards.arm} {params.out:q} > {params.log:q} 2>&1"
