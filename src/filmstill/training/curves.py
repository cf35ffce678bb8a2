"""Scalars of a training run, logged by DVCLive; the checkpoint that a run resumes from has restored its files."""

import os
import shutil
from pathlib import Path

os.environ.setdefault("ITERATIVE_DO_NOT_TRACK", "1")  # no usage analytics over the network

from dvclive import Live

from filmstill.runtime.files import copy_tree


class Curves:
    """`plots/metrics/<name>.tsv` with columns step and name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "plots" / "metrics"
        # Log scalars only: no DVC experiment, no dvc.yaml, no report.
        self._live = Live(str(folder), resume=True, save_dvc_exp=False, dvcyaml=None, report=None)

    def log(self, step: int, scalars: dict[str, float]) -> None:
        self._live.step = step
        for name, value in scalars.items():
            self._live.log_metric(name, value)

    def values(self, name: str) -> list[float]:
        """Every logged value of one scalar, oldest first."""
        path = self.folder / f"{name}.tsv"
        if not path.is_file():
            return []
        return [float(line.split("\t")[1]) for line in path.read_text().splitlines()[1:]]

    def flush(self) -> None:
        """Sync every row to disk before a checkpoint is saved: a crash must not keep the checkpoint and lose rows."""
        for path in self.folder.rglob("*.tsv"):
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        self._live.end()


def publish_curves(work: Path, out: Path) -> None:
    """Copy a training's curves and sample sheets from its work folder to `out`, beside its weights."""
    for source, target in (("curves/plots/metrics", "curves"), ("sheets", "sheets")):
        shutil.rmtree(out / target, ignore_errors=True)
        copy_tree(work / source, out / target)
