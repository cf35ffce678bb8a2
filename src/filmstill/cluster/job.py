"""What every process of a stage's job runs: the stage's `main`, and on record how it ended.

Notable: the work folder is the only state, since SLURM starts this very object again after a requeue; every process
that fails says how in a file of its own, so that the cause is told from its echoes, processes that only lost a peer;
when SLURM warns of the time limit or of a preemption the job leaves in order: saved, and back in the queue.
"""

import json
import os
import re
import runpy
import shutil
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import filmstill
from filmstill.cluster import slurm
from filmstill.cluster.meeting import meet
from filmstill.errors import FULL, FilmstillError, GateError, Interrupted, writing_failed
from filmstill.params.compute import Compute
from filmstill.params.load import section
from filmstill.runtime.files import write_json, write_text
from filmstill.runtime.job_folder import JOB, LEFT, START, is_superseded, note_leave, restarts
from filmstill.work import graph
from filmstill.work.stage import Stage, files_of

DONE, GATE, REFUSED, CRASHED = "done", "gate", "refused", "crashed"  # how a job ends
STARTED, LOST = "started", "lost"  # no end: it may go on, or its processes lost one of them
# What gloo, NCCL and torch's store say where a peer has gone, or its port has not been given back yet.
PEER_LOST = re.compile(
    "closed by peer|reset by peer|likely closed|broken pipe|remote process exited|pair closure|connection refused|"
    "timed out|timeout|EADDRINUSE|no route to host|(network|host) is (unreachable|down)|unhandled system error|"
    "communicator was aborted|ncclInternalError|ncclRemoteError",
    re.IGNORECASE,
)
SECONDS_TO_SPEAK = 10.0  # that the first process has to end by itself, before another's end would kill it
SECONDS_TO_REQUEUE = 20.0  # that it has to ask SLURM before another asks in its place
SECONDS_TO_BE_KILLED = 300.0


@dataclass(frozen=True)
class Job:
    """One submission of a stage: what submitit pickles, and every process of the job calls."""

    root: Path  # the repository
    stage: str
    folder: Path  # the submission's, from the root: .work/<stage>/<key>/jobs/<number>
    restarts: int  # by SLURM after a loss, how many are allowed
    sharding: str
    offload: bool

    def __call__(self) -> None:
        """Run the stage. Ends the process itself, with exit code 1, when that fails."""
        rank = int(os.environ["SLURM_PROCID"])
        try:
            signal.signal(signal.SIGUSR2, _leave)
            signal.signal(signal.SIGTERM, _stay)
            os.chdir(self.root)
            os.environ[JOB] = str(self.root / self.folder)
            self._make(rank)
        except Interrupted:
            self._requeue(rank)
        except BaseException as error:
            self._fail(rank, error)

    def checkpoint(self) -> Any:
        """What submitit queues again when SLURM's warning comes before this object answers signals: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _make(self, rank: int) -> None:
        """Make the stage's `out`; the first process puts on record what it was made from."""
        stage = Stage(self.stage, self.folder.parents[1])
        if rank == 0:
            _end_if_superseded()
            write_text(self.folder / START, str(restarts()))
            self._refuse_restarts()
            inputs = self._inputs()
            digest = {"inputs": inputs.digest(with_gates=True)}
            write_json(self._record(0), {"outcome": STARTED, "message": "", **digest})
            graph.refuse_sources_younger(inputs, filmstill.BEGAN)
        else:
            self._record(rank).unlink(missing_ok=True)  # of an earlier start
        from filmstill.runtime import distributed  # after seconds, in which SLURM may want the node: all is on record

        meet()
        distributed.start(section(Compute, "compute").device, self.sharding, self.offload)
        runpy.run_path(f"stages/{self.stage}.py")["main"](stage)
        distributed.barrier()
        if rank == 0:
            self._inputs()
            _end_if_superseded()
            write_json(self._record(0), {"outcome": DONE, "message": "", **digest, "files": files_of(stage.out)})
        distributed.stop()

    def _inputs(self) -> graph.Inputs:
        """The stage's inputs as they stand, which must be those that the work folder is named by."""
        found, work = graph.inputs(self.stage), self.folder.parents[1]
        if found.key != work.name:
            raise FilmstillError(
                f"{self.stage}: its sources or params.yaml changed since it was submitted; the work is kept in {work}: "
                "run `dvc repro` again"
            )
        return found

    def _refuse_restarts(self) -> None:
        if restarts() - left(self.folder) > self.restarts:
            raise FilmstillError(over_limit(self.stage, self.folder))

    def _requeue(self, rank: int) -> NoReturn:
        """Go back to the queue and wait to be killed; the first process asks, or another where that one is stuck."""
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        _end_if_superseded()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        end = time.monotonic() + SECONDS_TO_BE_KILLED
        if rank == 0 and self._has_progressed():
            note_leave()
        if shutil.which("scontrol") is None:  # a container without SLURM: whoever waits for the job submits it again
            os._exit(1)
        if rank != 0:
            time.sleep(SECONDS_TO_REQUEUE)
        while time.monotonic() < end:
            _end_if_superseded()  # or it would be the next start that goes back
            try:
                slurm.requeue(os.environ["SLURM_JOB_ID"])
            except (FilmstillError, slurm.Unreachable) as error:  # or SLURM has done it already
                print(f"filmstill: not requeued: {error}", file=sys.stderr, flush=True)
            time.sleep(SECONDS_TO_REQUEUE)
        os._exit(1)

    def _has_progressed(self) -> bool:
        """Whether this start has saved anything: one that has not would leave in order for ever."""
        if not (self.folder / START).exists():  # told to leave before it began
            return False
        began = (self.folder / START).stat().st_mtime
        return any(saved.stat().st_mtime > began for saved in self.folder.parents[1].glob("checkpoints/step-*"))

    def _fail(self, rank: int, error: BaseException) -> NoReturn:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # it is over: to leave in order now would hide how
        _end_if_superseded()
        outcome, message = verdict(error)
        if outcome in (CRASHED, LOST):
            traceback.print_exception(error)
        else:
            print(f"filmstill: {message}", file=sys.stderr)
        with suppress(FilmstillError):  # a full disk: the log has it
            how = {"outcome": outcome, "message": message, "rank": rank}
            write_json(self._record(rank), {**self._inputs_on_record(), **how})
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if rank != 0 and outcome in (GATE, REFUSED):  # all end so, and what the first one writes is published
            time.sleep(SECONDS_TO_SPEAK)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # at once: threads of torch may wait for peers that have gone

    def _inputs_on_record(self) -> dict[str, Any]:
        """What this start began with: a missed gate may be another one by now."""
        try:
            return {"inputs": json.loads(self._record(0).read_text())["inputs"]}
        except (OSError, ValueError, KeyError):  # it did not come so far
            return {}

    def _record(self, rank: int) -> Path:
        return self.folder / ("result.json" if rank == 0 else f"crash-{rank}.json")


def ended(folder: Path) -> dict[str, Any] | None:
    """The record of how the job of a submission's folder ended, the first one of several; None: it has not, by itself.

    {"outcome": done | gate | refused | crashed, "message": one line, "inputs": their digest where it came so far}, of a
    done one also "files", of another the "rank" of the process.
    """
    ends = []
    for path in (*folder.glob("result.json"), *folder.glob("crash-*.json")):
        with suppress(OSError, ValueError):  # the job starts again just now, on another machine
            ends.append((path.stat().st_mtime, json.loads(path.read_text())))
    own = [end for _, end in sorted(ends, key=lambda each: each[0])]
    return next((end for end in own if end["outcome"] in (DONE, GATE, REFUSED, CRASHED)), None)


def began(folder: Path) -> bool:
    """Whether the job of a submission's folder came as far as python."""
    return (folder / "result.json").exists()


def has_left(folder: Path, start: int) -> bool:
    """Whether that start of the job left in order."""
    return (folder / f"{LEFT}{start}").exists()


def last_start(folder: Path) -> int:
    """Which start of the job came as far as python last: 0 is the first."""
    with suppress(OSError, ValueError):
        return int((folder / START).read_text())
    return 0


def left(folder: Path) -> int:
    """How often the job of a submission's folder went back to the queue in order."""
    return len(list(folder.glob(f"{LEFT}*")))


def over_limit(stage: str, folder: Path) -> str:
    return (
        f"{stage}: its job lost a node or a process, or had to leave before it had saved anything, more often than "
        f"max_requeues of cluster.yaml allows; look at the logs in {folder} (where they end before a first checkpoint, "
        "raise time: in cluster.yaml), then run `dvc repro`, which goes on from what is saved"
    )


def verdict(error: BaseException) -> tuple[str, str]:
    """(outcome, the one line for it) of what a process failed with."""
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


def _end_if_superseded() -> None:
    """Without a word, where SLURM has started the job again elsewhere: what is on record is that start's."""
    if is_superseded():
        os._exit(1)


def _leave(number: int, _frame: object) -> NoReturn:
    raise Interrupted("SLURM wants the node, or the time limit is near", number)


def _stay(_number: int, _frame: object) -> None:
    pass
