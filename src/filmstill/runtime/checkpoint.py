"""Checkpoints of a training run: whole or absent, verified on read, the last two kept."""

import sys
from pathlib import Path

from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.runtime.files import load_tensors, save_tensors

KEPT = 2


class Checkpoints:
    """`step-<n>.safetensors` files in one folder; n is the number of finished steps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, step: int, tensors: dict[str, Tensor]) -> None:
        save_tensors(self._path(step), tensors)
        for old in self._steps()[:-KEPT]:
            self._path(old).unlink(missing_ok=True)

    def latest(self) -> tuple[int, dict[str, Tensor]] | None:
        """(step, tensors) of the newest good checkpoint; a damaged one is removed with a warning."""
        for step in reversed(self._steps()):
            try:
                return step, load_tensors(self._path(step))[0]
            except FilmstillError as error:
                print(f"warning: {error}; going on from the checkpoint before it", file=sys.stderr)
                self._path(step).unlink()
        return None

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:07d}.safetensors"

    def _steps(self) -> list[int]:
        return sorted(int(path.stem.removeprefix("step-")) for path in self.folder.glob("step-*.safetensors"))
