"""ODE pairs on disk: shards of trajectories at the schedule's nodes, and the manifest that binds them.

Notable: trajectories stay on disk until a batch asks for them (Wan's 16,000 pairs are 335 GB in bfloat16); `load` reads
every shard once, to hold it against its digest.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import safe_open
from torch import Tensor

from filmstill.diffusion.schedule import FlowSchedule
from filmstill.errors import FilmstillError
from filmstill.runtime import distributed
from filmstill.runtime.safetensors_file import opened, read_metadata
from filmstill.runtime.tables import read_table
from filmstill.runtime.tensor_files import load_tensors

TOLERANCE = 1e-6  # between two sigmas that are the same node


@dataclass(frozen=True)
class Pairs:
    """N trajectories: `sigmas` [S] of their latents (the last is 0), one of `prompts` each, `shape` (F, C, H, W).

    `places` says in which file and row each one is.
    """

    sigmas: Tensor
    prompts: list[str]
    shape: tuple[int, int, int, int]
    places: list[tuple[Any, int]]

    @classmethod
    def load(cls, folder: Path) -> "Pairs":
        """Open a finished pairs folder; refuses damaged shards and shards of another schedule or size.

        Where a job has several processes, each holds its share of the shards against their digests.
        """
        manifest = read_table(folder / "manifest.parquet")
        if manifest.empty:
            raise FilmstillError(f"{folder}: its manifest names no pairs; remove it and run `dvc repro ode_pairs`")
        found: tuple[list[float], tuple[int, ...]] | None = None
        places: list[tuple[Any, int]] = []
        for number, (name, rows) in enumerate(manifest.groupby("shard", sort=False)):
            shard = folder / str(name)
            if number % distributed.world_size() == distributed.rank():
                load_tensors(shard)
            facts = _facts(shard, rows)
            if found is not None and facts != found:
                raise FilmstillError(f"{shard}: of another schedule or size than the shards before it; remake it")
            found = facts
            latents = safe_open(shard, framework="pt").get_slice("latents")
            places += [(latents, row) for row in range(len(rows))]
        assert found is not None  # the manifest has rows
        sigmas, (frames, channels, height, width) = found
        shape = (frames, channels, height, width)
        return cls(torch.tensor(sigmas, dtype=torch.float64), manifest["text"].tolist(), shape, places)

    def trajectories(self, rows: list[int], nodes: list[int]) -> Tensor:
        """Latents [len(rows), len(nodes), F, C, H, W] of these pairs at these of the stored nodes."""
        return torch.stack([latents[row : row + 1][0, nodes] for latents, row in (self.places[i] for i in rows)])

    def node_indices(self, schedule: FlowSchedule, steps: int) -> list[int]:
        """Where the student's nodes, then the clean end, stand among the stored ones. One schedule a pipeline."""
        indices = []
        for sigma in [*schedule.nodes(steps).tolist(), 0.0]:
            distance = (self.sigmas - sigma).abs()
            if distance.min() > TOLERANCE:
                stored = ", ".join(f"{1000 * s:g}" for s in self.sigmas[:-1].tolist())
                wanted = ", ".join(f"{1000 * s:g}" for s in schedule.nodes(steps).tolist())
                raise FilmstillError(
                    f"student.denoising_steps: is {steps} (timesteps {wanted}), but the pairs hold timesteps {stored}; "
                    "use the pairs' schedule.shift and a divisor of ode_pairs.nodes, or make the pairs again"
                )
            indices.append(int(distance.argmin()))
        return indices


def _facts(shard: Path, rows: pd.DataFrame) -> tuple[list[float], tuple[int, ...]]:
    """(sigmas, size of a clip's latents) of a shard that holds what the manifest says."""
    facts = read_metadata(shard)
    with opened(shard, "pt") as file:
        if not {"ids", "sigmas"} <= set(facts) or "latents" not in file.keys():  # noqa: SIM118 (not a dict)
            raise FilmstillError(f"{shard}: is not a shard of pairs; remove its folder and run `dvc repro ode_pairs`")
        shape = file.get_slice("latents").get_shape()
    if json.loads(facts["ids"]) != rows["id"].tolist() or shape[0] != len(rows):
        raise FilmstillError(f"{shard}: holds other pairs than the manifest says; remake it")
    return json.loads(facts["sigmas"]), tuple(shape[2:])
