"""A stage's shards as jobs of SLURM's: Snakemake submits them, this waits for them.

Notable: Snakemake leaves once it has submitted. As a watcher it asks ever more rarely, up to every three minutes, and
waits for ever for a job it has lost sight of: preempted and not requeued, forgotten by squeue, or when the controller
restarts. So SLURM's queue is the one record of what runs, and a run that takes over from a killed one does what every
run does: wait for the shards' jobs that are alive, then ask for the shards that are missing.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from filmstill.cluster import slurm
from filmstill.cluster.config import Asked, Cluster
from filmstill.cluster.preflight import preflight
from filmstill.errors import FilmstillError, Interrupted
from filmstill.runtime.fanout import done, last_line, log_of, snakemake
from filmstill.runtime.files import write_text
from filmstill.runtime.progress import progress

TRIES = 2  # of a shard, as in workflow/profiles/default
SECONDS_TO_STOP = 30.0  # that Snakemake has to finish its last sbatch
SUBMITTED = re.compile(r"SLURM jobid (\d+) \(log: .*/(.+)/\d+\.log\)")  # Snakemake's log: id and wildcard of a job
REFUSED = re.compile(r"The error message was '(?:sbatch: )*(?:error: )?([^'\n]+)|submission failed with exception: (.+)")
OWN_END = ("COMPLETED", "FAILED")  # a job's state when it ended by itself
ADVICE = {"TIMEOUT": "; raise time of {} in cluster.yaml", "OUT_OF_MEMORY": "; raise memory_gb of {} in cluster.yaml"}


def make_as_jobs(stage: str, work: Path, shards: list[str], items: int, unit: str, cluster: Cluster) -> None:
    """Make the shards that are missing in `work`. Raises FilmstillError with the reason, Interrupted when told to stop.

    Told to stop, it cancels the jobs; killed, it leaves them to the next run.
    """
    root = Path.cwd()
    preflight(stage, cluster, root)
    name = slurm.job_name(stage, work.name, root).replace(".", "-")  # Snakemake takes no dot, and adds _<a number>
    tries: Counter[str] = Counter()
    jobs: dict[str, str] = {}
    try:
        with progress(stage, items, unit=unit) as bar:
            while True:
                _wait(bar, name, work, cluster)
                todo = [shard for shard in _missing(work, shards) if tries[shard] < TRIES]
                if not todo:
                    break
                submitted = _submit(name, work, todo, cluster.asked(stage), cluster.poll_seconds)
                jobs |= submitted
                tries.update(list(submitted or todo))  # over the limit of jobs some wait for the next round
    except (Interrupted, KeyboardInterrupt) as error:
        number = error.signal if isinstance(error, Interrupted) else signal.SIGINT
        raise Interrupted(f"{stage}: stopped; {_cancel(name)}", number) from None
    for shard in _missing(work, shards):
        raise FilmstillError(f"{stage}: shard {shard} failed: {_why(stage, work, shard, jobs.get(shard))}")


def _wait(bar: tqdm, name: str, work: Path, cluster: Cluster) -> None:
    """Return when none of the shards' jobs is alive any more."""
    while live := _alive(name):
        for job in live:
            if job.restarts > cluster.max_requeues:
                slurm.cancel(job.id)
        bar.set_postfix(refresh=False, jobs=...)
        bar.update(done(work) - bar.n)
        time.sleep(cluster.poll_seconds)
