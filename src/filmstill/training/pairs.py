"""ODE pairs on disk: shards of the teacher's trajectories at the schedule's nodes, and the manifest that lists them.

Trajectories are read from disk per batch (Wan's 16,000 pairs are 335 GB in bfloat16). `load` reads every shard once, to
check its digest.
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

TOLERANCE = 1e-6  # two sigmas closer than this are the same node


@dataclass(frozen=True)
class Pairs:
    """N trajectories of S latents each.

    sigmas: [S] noise levels of a trajectory's latents, descending to 0. prompts: N. shape: (F, C, H, W) of a clip.
    locations: per trajectory, its shard's latents [rows, S, F, C, H, W] and its row in them.
    """

    sigmas: Tensor
    prompts: list[str]
    shape: tuple[int, int, int, int]
    locations: list[tuple[Any, int]]

    @classmethod
    def load(cls, folder: Path) -> "Pairs":
        """Open a finished pairs folder. The ranks of a job share the checking of digests.

        Raises FilmstillError for damaged shards, and if shards differ in schedule or size or from the manifest.
        """
        manifest = read_table(folder / "manifest.parquet")
        if manifest.empty:
            raise FilmstillError(f"{folder}: its manifest names no pairs; remove it and run `dvc repro ode_pairs`")
        found: tuple[list[float], tuple[int, ...]] | None = None
        locations: list[tuple[Any, int]] = []
        for number, (name, rows) in enumerate(manifest.groupby("shard", sort=False)):
            shard = folder / str(name)
            if number % distributed.world_size() == distributed.rank():
                load_tensors(shard)
            facts = _facts(shard, rows)
            if found is not None and facts != found:
                raise FilmstillError(
                    f"{shard}: of another schedule or size than the shards before it; remove its folder and run "
                    "`dvc repro ode_pairs`"
                )
            found = facts
            latents = safe_open(shard, framework="pt").get_slice("latents")
            locations += [(latents, row) for row in range(len(rows))]
        assert found is not None  # the manifest has rows
        sigmas, (frames, channels, height, width) = found
        shape = (frames, channels, height, width)
        return cls(torch.tensor(sigmas, dtype=torch.float64), manifest["text"].tolist(), shape, locations)

    def trajectories(self, rows: list[int], nodes: list[int]) -> Tensor:
        """Read the latents [len(rows), len(nodes), F, C, H, W] of these pairs at these indices of stored nodes."""
        return torch.stack([latents[row : row + 1][0, nodes] for latents, row in (self.locations[i] for i in rows)])

    def node_indices(self, schedule: FlowSchedule, steps: int) -> list[int]:
        """Indices of the student's nodes, and last the clean end, among the stored nodes.

        Raises FilmstillError if one of the student's nodes is not stored.
        """
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
    """(sigmas, (F, C, H, W)) of a shard. Raises FilmstillError if it does not contain the manifest's `rows`."""
    facts = read_metadata(shard)
    with opened(shard, "pt") as file:
        if not {"ids", "sigmas"} <= set(facts) or "latents" not in file.keys():  # noqa: SIM118 (not a dict)
            raise FilmstillError(f"{shard}: is not a shard of pairs; remove its folder and run `dvc repro ode_pairs`")
        shape = file.get_slice("latents").get_shape()
    if json.loads(facts["ids"]) != rows["id"].tolist() or shape[0] != len(rows):
        raise FilmstillError(
            f"{shard}: holds other pairs than the manifest lists; remove its folder and run `dvc repro ode_pairs`"
        )
    return json.loads(facts["sigmas"]), tuple(shape[2:])
