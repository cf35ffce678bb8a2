"""Where a stage and its shards run, as cluster.yaml says: on this machine, or as SLURM jobs."""

from collections.abc import Callable
from pathlib import Path

from filmstill.cluster.config import LOCAL, SLURM, read_cluster
from filmstill.cluster.scratch import use_scratch
from filmstill.cluster.shard_logs import logs
from filmstill.work import fanout
from filmstill.work.stage import Stage, run


def run_stage(name: str, main: Callable[[Stage], None]) -> None:
    """The body of every stage script: `work.stage.run`, its work folder on cluster.yaml's scratch if it names one."""
    run(name, main, lambda root: use_scratch(read_cluster(), root))


def fan_out(label: str, work: Path, shards: list[str], items: int, unit: str, device: str) -> list[Path]:
    """Make `work`/shards/<shard>.safetensors for every shard; returns their paths in order.

    `label` is the stage's name. `items` is the work of all shards together, which they report with `report_done`.
    `device` cuda: one at a time on this machine; each SLURM job has a GPU of its own.
    Raises FilmstillError with the end of a failed shard's log, Interrupted when stopped by a signal.
    """
    paths, cluster = fanout.begin(label, work, shards), read_cluster()
    if cluster.executor == SLURM:
        from filmstill.cluster.shards import make_as_jobs

        make_as_jobs(label, work, shards, items, unit, cluster)
        return paths
    if logs(work).exists() and not all(path.exists() for path in paths):
        from filmstill.cluster.shards import refuse_beside_jobs

        refuse_beside_jobs(label, work)
    fanout.make_here(label, work, shards, items, unit, device)
    return paths


def shards_run_here() -> bool:
    """Whether shards run side by side on this machine, so that one process should encode their prompts for all."""
    return read_cluster().executor == LOCAL
