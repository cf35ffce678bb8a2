"""Run a stage and its shards where cluster.yaml sets: on this machine or as SLURM jobs."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from filmstill.cluster.config import LOCAL, SLURM, read_cluster
from filmstill.cluster.dispatch import dispatched, make_here
from filmstill.cluster.scratch import use_work
from filmstill.cluster.submit_shards import job_logs
from filmstill.params.pretrain import check_pretrain
from filmstill.params.profile import check
from filmstill.params.schema import Params
from filmstill.work import fanout
from filmstill.work.graph import PRETRAIN
from filmstill.work.prompt_counts import check_prompt_counts
from filmstill.work.shard import is_proven
from filmstill.work.stage import Stage, run


def run_stage(
    name: str,
    main: Callable[[Stage], None],
    as_job: bool = False,
    check_files: Callable[[Params], None] = lambda _params: None,
) -> None:
    """The body of every stage script: `work.stage.run`, with the work folders where `use_work` puts them.

    as_job: `main` runs as a SLURM job where cluster.yaml sets that executor; else always in this process.
    First checks all of params.yaml: what a later stage would refuse is refused before this one spends hours.
    check_files: called then, before the stage's dependencies are hashed.
    Never returns: it ends the process (exit codes: see `work.stage.run`).
    """

    def before(root: Path) -> None:
        params = check()
        check_files(params)
        check_prompt_counts(params)
        use_work(read_cluster(), root)

    run(name, dispatched(main) if as_job else partial(make_here, main), before)


def run_pretraining(name: str, main: Callable[[Stage], None]) -> None:
    """The body of a script in pretrain/: `main` always runs in this process. Never returns: it ends the process.

    First checks all of pretrain/params.yaml.
    """

    def before(root: Path) -> None:
        check_pretrain()
        use_work(read_cluster(), root)

    run(name, partial(make_here, main), before, PRETRAIN)


def fan_out(label: str, work: Path, shards: list[str], items: int, unit: str, device: str) -> list[Path]:
    """Make `work`/shards/<shard>.safetensors for every shard; returns their paths in order.

    label: the stage's name. items, unit: the work of all shards together, which they report by `report_done`.
    device: with cuda, shards are made one at a time on this machine; every SLURM job has its own GPU.
    Raises FilmstillError with the last line of a failed shard's log, Interrupted when stopped by a signal.
    """
    cluster, paths = read_cluster(), fanout.paths_of(work, shards)
    if cluster.executor == SLURM:
        from filmstill.cluster.shards import make_as_jobs

        make_as_jobs(label, work, shards, items, unit, cluster)
        return paths
    if job_logs(work).exists() and not all(map(is_proven, paths)):
        from filmstill.cluster.shards import refuse_beside_jobs

        refuse_beside_jobs(label, work)
    fanout.prepare(label, work, paths)
    fanout.make_here(label, work, shards, items, unit, device)
    return paths


def shards_run_here() -> bool:
    """Whether shards run side by side on this machine, so that one process should encode the prompts of all."""
    return read_cluster().executor == LOCAL
