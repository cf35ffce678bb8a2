rule samples_shard:
    output:
        "shards/samples-{shard}.safetensors",
    log:
        "logs/samples-{shard}.log",
    conda:
        "../envs/filmstill.yaml"
    # The shard `timing` runs alone, by the lock file `turn` (filmstill.work.shard): it times every arm in turns.
    # A GPU has memory for one shard at a time; every SLURM job has its own GPU.
    threads: CPUS or (workflow.cores if config.get("device") == "cuda" else 1)
    params:
        root=ROOT,
        python=PYTHON,
        out=lambda wildcards, output: Path(output[0]).resolve(),
        log=lambda wildcards: Path(f"logs/samples-{wildcards.shard}.log").resolve(),
        turn=lambda wildcards: "-" if CPUS else Path("turn").resolve(),
    shell:
        "cd {params.root:q} && {params.python} workflow/scripts/samples.py {wildcards.shard} {params.out:q} {params.turn:q} > {params.log:q} 2>&1"


ruleorder: samples_teacher_shard > samples_shard


use rule samples_shard as samples_teacher_shard with:
    output:
        "shards/samples-{shard,teacher-.*}.safetensors",
    priority: 1  # the slowest arm starts first
