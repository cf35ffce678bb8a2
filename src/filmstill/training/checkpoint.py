"""Checkpoints of a training run: sharded, asynchronous, atomic, verified on read; the last two are kept.

torch.distributed.checkpoint writes each rank's shard as safetensors, while training continues, into a temporary folder
that is renamed once every shard is on disk. The manifest holds each shard's SHA-256. A job of any world size can load
the checkpoints of any other, directly into the tensors that it continues with.
"""

import logging
import shutil
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from filmstill.errors import FULL, FilmstillError, writing_failed
from filmstill.runtime import distributed
from filmstill.training.checkpoint_folder import (
    MANIFEST,
    damage,
    discard,
    missing_part,
    restore_record,
    step_of,
    unfinished,
    write_record,
)

KEPT = 2  # checkpoints that stay on disk

# The library warns of this at every save and load, from another thread; a single process needs no process group.
warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")

log = logging.getLogger(__name__)


class Checkpoints:
    """The folders `step-<n>` in `folder`; n is the number of finished steps.

    A checkpoint also records the curves and sheets beside `folder`, which a resumed run goes on from.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._saving: Future | None = None
        self._target = folder
        self._group = _checkpoint_group()

    def save(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors and write them in the background, after waiting for the previous save.

        Collective: every rank must call it. Raises as `wait` if the previous save failed.
        """
        from torch.distributed.checkpoint import async_save

        from filmstill.training.checkpoint_storage import Writer

        self.wait()
        self._target = self._path(step)
        if distributed.is_rank0():
            write_record(self.folder.parent, unfinished(self._target))
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        writer = Writer(self._target, [self._path(old) for old in self.steps()[: 1 - KEPT]])
        single = self._group is None
        saving = async_save(contiguous, storage_writer=writer, process_group=self._group, no_dist=single)
        assert isinstance(saving, Future)  # the tensors are already copied: training may change them
        self._saving = saving

    def wait(self) -> None:
        """Wait until the last save is on disk. Raises FilmstillError for a full disk, else the error of the save."""
        saving, self._saving = self._saving, None
        if saving is None:
            return
        from torch.distributed.checkpoint.api import CheckpointException

        try:
            saving.result()
        except (Exception, CheckpointException) as error:  # CheckpointException is not an Exception
            shutil.rmtree(unfinished(self._target), ignore_errors=True)
            raise _cause(self._target, error) from error

    def close(self) -> None:
        """Wait for a save that is still running when training ends by an error; the save's own errors are dropped."""
        if self._saving is not None:
            wait([self._saving])

    def newest(self) -> int:
        """The step of the newest checkpoint, after waiting for a running save; 0 if there is none."""
        with suppress(Exception):  # the caller is about to report a worse error
            self.wait()
        return max(self.steps(), default=0)

    def load_latest(self, tensors: Callable[[], Mapping[str, Tensor]]) -> int:
        """Fill `tensors()` from the newest good checkpoint, restore its record, and return its step; 0: there is none.

        Collective: every rank must call it. A damaged checkpoint is removed with a warning.
        Raises FilmstillError for a checkpoint of another training.
        """
        self._remove_unfinished()
        steps = self.steps()
        for step in reversed(steps):
            path = self._path(step)
            found = distributed.first_message(missing_part(path)) or distributed.first_message(damage(path))
            if found is None:
                self._load(path, tensors())
                self._restore_record(path)
                return step
            if distributed.is_rank0():
                before = "the checkpoint before it" if step > steps[0] else "the beginning"
                log.warning("%s; resuming from %s", found, before)
                discard(path)
            distributed.barrier()
        self._restore_record(None)
        return 0

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending and equal on every rank. Collective: every rank must call it."""
        found = self.folder.glob(f"step-*/{MANIFEST}") if distributed.is_rank0() else []
        return distributed.broadcast(sorted(step for path in found if (step := step_of(path.parent)) is not None))

    def _load(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        from torch.distributed.checkpoint import HuggingFaceStorageReader, load
        from torch.distributed.checkpoint.metadata import TensorStorageMetadata

        reader = HuggingFaceStorageReader(str(path))
        saved = {
            name: tuple(entry.size)
            for name, entry in reader.read_metadata().state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata)
        }
        expected = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if differing := sorted(name for name in saved | expected if saved.get(name) != expected.get(name)):
            raise FilmstillError(
                f"{path}: is not a checkpoint of this training: {differing[0]} is {saved.get(differing[0], 'absent')} "
                f"in it and {expected.get(differing[0], 'absent')} here; remove {self.folder} to start again"
            )
        load(dict(tensors), storage_reader=reader, process_group=self._group, no_dist=self._group is None)

    def _restore_record(self, checkpoint: Path | None) -> None:
        if distributed.is_rank0():
            restore_record(self.folder.parent, checkpoint)
        distributed.barrier()

    def _remove_unfinished(self) -> None:
        """Remove the folders of saves that were killed or failed, and a file in place of the folder."""
        if distributed.is_rank0():
            if self.folder.is_file():
                self.folder.unlink()
            for folder in self.folder.glob(".step-*.tmp"):
                shutil.rmtree(folder, ignore_errors=True)
        distributed.barrier()

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:07d}"


def _checkpoint_group() -> Any:
    """A gloo group for checkpoints only, since a save communicates while training does; None for a single process."""
    if distributed.sharding_config() is None:
        return None
    import torch.distributed as dist

    return dist.new_group(backend="gloo", timeout=distributed.TIMEOUT)


def _cause(path: Path, error: BaseException) -> Exception:
    """Why a save failed, on whichever rank: the one line for a full disk, else the first rank's error."""
    causes = [cause for cause, _ in getattr(error, "failures", {0: (error, None)}).values()]
    full = (cause for cause in causes if isinstance(cause, OSError) and cause.errno in FULL)
    if found := next(full, None):
        return writing_failed(path, found)
    return causes[0]
