rule ode_pairs_shard:
    output:
        "shards/pairs-{shard}.safetensors",
    log:
        "logs/pairs-{shard}.log",
    conda:
        "../envs/filmstill.yaml"
    # A GPU has memory for one shard at a time; every SLURM job has its own GPU.
    threads: CPUS or (workflow.cores if config.get("device") == "cuda" else 1)
    params:
        root=ROOT,
        python=PYTHON,
        out=lambda wildcards, output: Path(output[0]).resolve(),
        log=lambda wildcards: Path(f"logs/pairs-{wildcards.shard}.log").resolve(),
    shell:
        "cd {params.root:q} && {params.python} workflow/scripts/ode_pairs.py {wildcards.shard} {params.out:q} > {params.log:q} 2>&1"
