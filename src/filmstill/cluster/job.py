"""Entry point of every rank of a stage's job: run the stage's `main` and record how it ended.

All state is in files, because SLURM restarts this same pickled object after a requeue. Each failing rank writes its own
record, so the root cause is distinguishable from lost-peer errors. When SLURM signals that the time limit or a
preemption is near, the job checkpoints and requeues.
"""

import logging
import os
import re
import runpy
import shutil
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import filmstill
from filmstill.cluster import slurm
from filmstill.cluster.config import cluster_name
from filmstill.cluster.records import read_record
from filmstill.cluster.rendezvous import rendezvous
from filmstill.errors import FULL, FilmstillError, GateError, Interrupted, writing_failed
from filmstill.params.compute import Compute
from filmstill.params.load import Values
from filmstill.runtime.caches import use_writable_caches
from filmstill.runtime.files import write_json, write_text
from filmstill.runtime.job_folder import CLEAN_EXIT, JOB, START, is_superseded, record_clean_exit, restart_count
from filmstill.runtime.logs import log_to_stderr
from filmstill.runtime.streams import set_up_streams
from filmstill.work import graph
from filmstill.work.stage import Stage, files_of

log = logging.getLogger(__name__)

DONE, GATE, REFUSED, CRASHED = "done", "gate", "refused", "crashed"  # outcomes that end a job
STARTED, LOST = "started", "lost"  # outcomes that do not: still running, or failed only because a peer was lost
# Errors of gloo, NCCL and torch's store where a peer has exited, or its port is not free again yet.
PEER_LOST = re.compile(
    "closed by peer|reset by peer|likely closed|broken pipe|remote process exited|pair closure|connection refused|"
    "timed out|timeout|EADDRINUSE|no route to host|(network|host) is (unreachable|down)|unhandled system error|"
    "communicator was aborted|ncclInternalError|ncclRemoteError",
    re.IGNORECASE,
)
RANK0_SECONDS = 10.0  # for rank 0 to end by itself: when another rank exits first, srun kills rank 0
REQUEUE_SECONDS = 20.0  # between two requests to requeue, and for rank 0 to send the first one
KILL_SECONDS = 300.0  # for SLURM to kill a job that asked to be requeued


@dataclass(frozen=True)
class Job:
    """One submission of a stage: submitit pickles it, and every rank of the job calls it."""

    root: Path  # the repository
    stage: str
    folder: Path  # the submission's, relative to root: .work/<stage>/<key>/jobs/<number>
    params: Values  # of the stage, read once by the process that submits it
    max_restarts: int  # by SLURM after a loss
    sharding: str
    offload: bool

    def __call__(self) -> None:
        """Run the stage. Where that fails, ends the process with exit code 1 instead of returning."""
        set_up_streams()
        log_to_stderr()
        use_writable_caches()
        rank = int(os.environ["SLURM_PROCID"])
        try:
            signal.signal(signal.SIGUSR2, _on_warning)
            signal.signal(signal.SIGTERM, _on_sigterm)
            os.chdir(self.root)
            os.environ[JOB] = str(self.root / self.folder)
            self._make(rank)
        except Interrupted:
            self._requeue(rank)
        except BaseException as error:
            self._fail(rank, error)

    def checkpoint(self) -> Any:
        """The object that submitit requeues when SLURM's signal arrives before `__call__` has set its own handlers."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _make(self, rank: int) -> None:
        """Make the stage's `out`; rank 0 records its inputs before and its files after."""
        stage = Stage(self.stage, self.folder.parents[1], self.params)
        if rank == 0:
            _exit_if_superseded()
            write_text(self.folder / START, str(restart_count()))
            self._refuse_restarts()
            inputs = self._inputs()
            digest = {"inputs": inputs.digest(with_gates=True)}
            write_json(self._record(0), {"outcome": STARTED, "message": "", **digest})
            stage.empty_out()
        else:
            self._record(rank).unlink(missing_ok=True)  # of an earlier start
        # Imports torch, which takes seconds: SLURM may signal meanwhile, so the record above comes first.
        from filmstill.runtime import distributed

        rendezvous()
        distributed.start(self.params.section(Compute, "compute").device, self.sharding, self.offload)
        runpy.run_path(f"stages/{self.stage}.py")["main"](stage)
        distributed.barrier()
        if rank == 0:
            files = files_of(stage.out)
            graph.refuse_rewritten(inputs, self._inputs(), stage.work)
            _exit_if_superseded()
            write_json(self._record(0), {"outcome": DONE, "message": "", **digest, "files": files})
        distributed.stop()

    def _inputs(self) -> graph.Inputs:
        """The job's inputs. Raises FilmstillError where theirs or the current key no longer names the work folder."""
        current, work = graph.inputs(self.stage, Values.read()), self.folder.parents[1]
        found = replace(current, params=self.params.values)
        if not found.key == current.key == work.name:
            raise FilmstillError(
                f"{self.stage}: its sources or params.yaml changed since it was submitted; the work is kept in {work}: "
                "run `dvc repro` again"
            )
        graph.refuse_edited_sources(found, filmstill.BEGAN)
        return found

    def _refuse_restarts(self) -> None:
        if restart_count() - clean_exits(self.folder) > self.max_restarts:
            raise FilmstillError(too_many_losses(self.stage, self.folder))

    def _requeue(self, rank: int) -> NoReturn:
        """Ask SLURM to requeue this job and wait to be killed. Rank 0 asks first, other ranks in case it is stuck."""
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        _exit_if_superseded()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        end = time.monotonic() + KILL_SECONDS
        if rank == 0 and self._has_progressed():
            record_clean_exit()
        if shutil.which("scontrol") is None:  # a container without SLURM: the process that waits submits the job again
            os._exit(1)
        if rank != 0:
            time.sleep(REQUEUE_SECONDS)
        while time.monotonic() < end:
            _exit_if_superseded()  # else the request would requeue the next start
            try:
                slurm.requeue(os.environ["SLURM_JOB_ID"])
            except (FilmstillError, slurm.Unreachable) as error:  # also where SLURM has requeued it already
                log.warning("not requeued: %s", error)
            time.sleep(REQUEUE_SECONDS)
        os._exit(1)

    def _has_progressed(self) -> bool:
        """Whether this start has saved a checkpoint: without one, the job could be requeued endlessly."""
        if not (self.folder / START).exists():  # signalled before it started
            return False
        start_time = (self.folder / START).stat().st_mtime
        return any(saved.stat().st_mtime > start_time for saved in self.folder.parents[1].glob("checkpoints/step-*"))

    def _fail(self, rank: int, error: BaseException) -> NoReturn:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # a requeue now would hide the failure
        _exit_if_superseded()
        outcome, message = classify(error)
        if outcome in (CRASHED, LOST):
            traceback.print_exception(error)
        else:
            log.error("filmstill: %s", message)
        with suppress(FilmstillError):  # the disk is full: the message is in the log
            how = {"outcome": outcome, "message": message, "rank": rank}
            write_json(self._record(rank), {**self._inputs_on_record(), **how})
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if rank != 0 and outcome in (
            GATE,
            REFUSED,
        ):  # every rank ends so; rank 0 may still be writing what is published
            time.sleep(RANK0_SECONDS)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # without waiting for torch's threads, which may wait for lost peers

    def _inputs_on_record(self) -> dict[str, Any]:
        """{"inputs": digest at the start of this job}: the gates may have been changed since. {} without a record."""
        match read_record(self._record(0)):
            case {"inputs": str(digest)}:
                return {"inputs": digest}
        return {}  # the job failed before it wrote one

    def _record(self, rank: int) -> Path:
        return self.folder / ("result.json" if rank == 0 else f"crash-{rank}.json")


def end_record(folder: Path) -> dict[str, Any] | None:
    """How the job of a submission's folder ended: the earliest record of an end. None: the job wrote none.

    {"outcome": done | gate | refused | crashed, "message": one line, "inputs": their digest if it was known}; after
    `done` also "files", otherwise the "rank" that failed.
    """
    records = []
    for path in (*folder.glob("result.json"), *folder.glob("crash-*.json")):
        with suppress(OSError):  # the job is just being restarted on another machine
            records.append((path.stat().st_mtime, read_record(path)))
    in_order = [record for _, record in sorted(records, key=lambda each: each[0])]
    return next(filter(_is_end, in_order), None)


def _is_end(record: Any) -> bool:
    match record:
        case {"outcome": str(outcome), "message": str()}:
            return outcome in (DONE, GATE, REFUSED, CRASHED) and type(record.get("rank", 0)) is int
    return False


def has_started(folder: Path) -> bool:
    """Whether rank 0 of the job in a submission's folder has started, and has written its record."""
    return (folder / "result.json").exists()


def exited_cleanly(folder: Path, start: int) -> bool:
    """Whether start number `start` of the job saved a checkpoint when signalled."""
    return (folder / f"{CLEAN_EXIT}{start}").exists()


def latest_start(folder: Path) -> int:
    """Number of the job's latest start in which Python started; 0 is the first."""
    with suppress(OSError, ValueError):
        return int((folder / START).read_text())
    return 0


def clean_exits(folder: Path) -> int:
    """How many starts of the job saved a checkpoint when signalled."""
    return len(list(folder.glob(f"{CLEAN_EXIT}*")))


def too_many_losses(stage: str, folder: Path) -> str:
    """The error message for a job that was lost more than max_requeues times."""
    return (
        f"{stage}: its job lost a node or a process, or was stopped before it had saved anything, more often than "
        f"max_requeues of {cluster_name()} allows; look at the logs in {folder} (if they end before the first "
        f"checkpoint, raise time: in {cluster_name()}), then run `dvc repro`, which resumes from what is saved"
    )


def classify(error: BaseException) -> tuple[str, str]:
    """(outcome, one-line message) for the exception that ended a rank."""
    if isinstance(error, OSError) and error.errno in FULL:
        error = writing_failed(error.filename or "a file", error)
    if isinstance(error, FilmstillError):
        return GATE if isinstance(error, GateError) else REFUSED, str(error)
    text = " ".join("".join(traceback.format_exception_only(error)).split())
    if isinstance(error, RuntimeError | OSError) and PEER_LOST.search(text):
        return LOST, text[:500]
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return CRASHED, f"{text[:500]} ({own[-1].filename}:{own[-1].lineno}, in {own[-1].name})"


def _exit_if_superseded() -> None:
    """End this process silently where SLURM has restarted the job elsewhere: the records belong to that start."""
    if is_superseded():
        os._exit(1)


def _on_warning(number: int, _frame: object) -> NoReturn:
    """Handler of SIGUSR2, which SLURM sends before a time limit or a preemption."""
    raise Interrupted("SLURM needs the node, or the time limit is near", number)


def _on_sigterm(_number: int, _frame: object) -> None:
    """Ignore SIGTERM: the job works on until SLURM kills it."""
