"""ODE pairs on disk: shards of trajectories at the schedule's nodes, and the manifest that binds them."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from filmstill.diffusion.schedule import FlowSchedule
from filmstill.errors import FilmstillError
from filmstill.runtime.files import load_tensors, read_table

TOLERANCE = 1e-6  # between two sigmas that are the same node


@dataclass(frozen=True)
class Pairs:
    """`latents` [N, S, F, C, H, W], noisy to clean; `sigmas` [S] of them (the last is 0); one prompt each."""

    latents: Tensor
    sigmas: Tensor
    prompts: list[str]

    @classmethod
    def load(cls, folder: Path) -> "Pairs":
        """Read a finished pairs folder; refuses damaged shards and shards of another schedule."""
        manifest = read_table(folder / "manifest.parquet")
        parts: list[Tensor] = []
        sigmas: Tensor | None = None
        for name, rows in manifest.groupby("shard", sort=False):
            shard = folder / str(name)
            tensors, facts = load_tensors(shard)
            if not {"ids", "sigmas"} <= set(facts) or "latents" not in tensors:
                raise FilmstillError(f"{shard}: is not a shard of pairs; remove {folder} and run `dvc repro ode_pairs`")
            if json.loads(facts["ids"]) != rows["id"].tolist():
                raise FilmstillError(f"{shard}: holds other pairs than the manifest says; remake it")
            nodes = torch.tensor(json.loads(facts["sigmas"]), dtype=torch.float64)
            if sigmas is not None and not torch.equal(nodes, sigmas):
                raise FilmstillError(f"{shard}: made on another schedule than the shards before it; remake it")
            sigmas = nodes
            parts.append(tensors["latents"])
        latents = torch.cat(parts)
        if sigmas is None or len(latents) != len(manifest):
            raise FilmstillError(f"{folder}: {len(manifest)} pairs in the manifest, {len(latents)} in the shards")
        return cls(latents, sigmas, manifest["text"].tolist())

    def node_indices(self, schedule: FlowSchedule, steps: int) -> list[int]:
        """Where the student's nodes, then the clean end, stand among the stored ones. One schedule a pipeline."""
        indices = []
        for sigma in [*schedule.nodes(steps).tolist(), 0.0]:
            distance = (self.sigmas - sigma).abs()
            if distance.min() > TOLERANCE:
                stored = ", ".join(f"{1000 * s:g}" for s in self.sigmas[:-1].tolist())
                wanted = ", ".join(f"{1000 * s:g}" for s in schedule.nodes(steps).tolist())
                raise FilmstillError(
                    f"student.steps: is {steps} (timesteps {wanted}), but the pairs hold timesteps {stored}; "
                    "use the pairs' schedule.shift and a divisor of ode_pairs.nodes, or make the pairs again"
                )
            indices.append(int(distance.argmin()))
        return indices
