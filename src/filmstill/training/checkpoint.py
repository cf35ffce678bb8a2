"""Checkpoints of a training run: sharded, asynchronous, whole or absent, verified on read, the last two kept.

Notable: torch.distributed.checkpoint writes each process's part as safetensors, while training goes on, into a folder
of a temporary name, which is renamed when every part is on disk; a part's SHA-256 stands in the manifest; any number of
processes reads what any number wrote, straight into the tensors that it will go on with.
"""

import shutil
import sys
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from filmstill.errors import FULL, FilmstillError, writing_failed
from filmstill.runtime import distributed
from filmstill.training.checkpoint_folder import MANIFEST, damage, missing_part, remove, unfinished

KEPT = 2

# A process alone needs no group; the library warns of it at every save and load, from a thread of its own.
warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")


class Checkpoints:
    """`step-<n>` folders in one folder; n is the number of finished steps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._saving: Future | None = None
        self._target = folder
        self._group = _own_group()

    def save(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors and write them in the background; the save before is over when this begins.

        Every process must ask. Raises FilmstillError when the save before could not be written.
        """
        from torch.distributed.checkpoint import async_save

        from filmstill.training.checkpoint_storage import Writer

        self.wait()
        self._target = self._path(step)
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        writer = Writer(self._target, [self._path(old) for old in self.steps()[: 1 - KEPT]])
        alone = self._group is None
        saving = async_save(contiguous, storage_writer=writer, process_group=self._group, no_dist=alone)
        assert isinstance(saving, Future)  # of a save whose tensors are copied when it returns
        self._saving = saving

    def wait(self) -> None:
        """Until the last save is on disk."""
        saving, self._saving = self._saving, None
        if saving is None:
            return
        from torch.distributed.checkpoint.api import CheckpointException

        try:
            saving.result()
        except (Exception, CheckpointException) as error:  # the library's is no Exception
            shutil.rmtree(unfinished(self._target), ignore_errors=True)
            raise _cause(self._target, error) from error

    def close(self) -> None:
        """Let a save end that is still being written when training ends for a reason of its own."""
        if self._saving is not None:
            wait([self._saving])

    def newest(self) -> int:
        """The step of the newest checkpoint, once the one that is being written is there or has failed; 0: none."""
        with suppress(Exception):  # whoever asks has a worse thing to tell
            self.wait()
        return max(self.steps(), default=0)

    def load_latest(self, tensors: Callable[[], Mapping[str, Tensor]]) -> int:
        """Fill `tensors()` from the newest good checkpoint and return its step; 0 when there is none.

        A damaged one is removed with a warning. Raises FilmstillError for one of another training.
        """
        self._remove_unfinished()
        steps = self.steps()
        for step in reversed(steps):
            path = self._path(step)
            found = distributed.first_message(missing_part(path)) or distributed.first_message(damage(path))
            if found is None:
                self._load(path, tensors())
                return step
            if distributed.is_rank0():
                before = "the checkpoint before it" if step > steps[0] else "the beginning"
                print(f"warning: {found}; going on from {before}", file=sys.stderr)
                remove(path)
            distributed.barrier()
        return 0

    def steps(self) -> list[int]:
        """Steps at which there is a checkpoint, the same on every process."""
        found = self.folder.glob(f"step-*/{MANIFEST}") if distributed.is_rank0() else []
        return distributed.broadcast(sorted(int(path.parent.name.removeprefix("step-")) for path in found))

    def _load(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        from torch.distributed.checkpoint import HuggingFaceStorageReader, load
        from torch.distributed.checkpoint.metadata import TensorStorageMetadata

        reader = HuggingFaceStorageReader(str(path))
        held = {
            name: tuple(entry.size)
            for name, entry in reader.read_metadata().state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata)
        }
        wanted = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if differing := sorted(name for name in held | wanted if held.get(name) != wanted.get(name)):
            raise FilmstillError(
                f"{path}: no checkpoint of this training: {differing[0]} is {held.get(differing[0], 'absent')} there "
                f"and {wanted.get(differing[0], 'absent')} here; remove {self.folder} to start anew"
            )
        load(dict(tensors), storage_reader=reader, process_group=self._group, no_dist=self._group is None)

    def _remove_unfinished(self) -> None:
        """What a save left that was killed, or had no room."""
        if distributed.is_rank0():
            for folder in self.folder.glob(".step-*.tmp"):
                shutil.rmtree(folder, ignore_errors=True)
        distributed.barrier()

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:07d}"


def _own_group() -> Any:
    """Processes' talk of checkpoints, apart from that of the training they are written beside; None: alone."""
    if distributed.sharding_config() is None:
        return None
    import torch.distributed as dist

    return dist.new_group(backend="gloo", timeout=distributed.TIMEOUT)


def _cause(path: Path, error: BaseException) -> Exception:
    """What a save failed of, on whichever process; a full disk as its one line."""
    causes = [cause for cause, _ in getattr(error, "failures", {0: (error, None)}).values()]
    full = (cause for cause in causes if isinstance(cause, OSError) and cause.errno in FULL)
    if found := next(full, None):
        return writing_failed(path, found)
    return causes[0]
