"""Make ODE pairs: the teacher's trajectories from noise to clip, kept at the student's nodes.

Notable: a shard is a function of its number; every pair's noise is addressed by its prompt; a shard holds the
schedule's nodes, which a training stage compares with its own.
"""

import json
from pathlib import Path

import torch

from filmstill.artifacts import TEACHER
from filmstill.diffusion.noise import clip_noise
from filmstill.diffusion.sample import guided, sample
from filmstill.distill.pairs_table import prompts_of
from filmstill.distill.setup import Setup
from filmstill.models.load import DTYPES
from filmstill.params.load import section
from filmstill.params.ode_pairs import OdePairs
from filmstill.runtime.shard_process import report_done
from filmstill.runtime.tensor_files import save_tensors


def make_shard(number: int, out: Path) -> None:
    """Write shard `number`: latents [n, nodes + 1, F, C, H, W] of its prompts, noisy to clean."""
    params, setup = section(OdePairs, "ode_pairs"), Setup.prepared()
    torch.set_num_threads(1)  # shards run side by side
    mine = prompts_of(params).iloc[number :: params.shards]
    setup.encoder.prepare([*mine["text"].tolist(), setup.text.negative])
    model, no_text = setup.frozen(TEACHER), setup.no_text()
    keep = [params.steps // params.nodes * node for node in range(params.nodes)]
    parts = []
    for start in range(0, len(mine), params.batch):
        rows = mine.iloc[start : start + params.batch]
        noise = clip_noise(rows["prompt"].tolist(), [setup.seed] * len(rows), 1, setup.latent_shape)[:, 0]
        text = setup.encoder.encode(rows["text"].tolist()).to(setup.device)
        velocity = guided(model, text, no_text, params.guidance)
        latents = sample(velocity, noise.to(setup.device), setup.schedule, params.steps, keep)
        parts.append(latents.to("cpu", DTYPES[setup.compute.precision]))
        report_done(out, start + len(rows))
    sigmas = [*setup.schedule.nodes(params.nodes).tolist(), 0.0]
    facts = {"ids": json.dumps(mine["id"].tolist()), "sigmas": json.dumps(sigmas)}
    save_tensors(out, {"latents": torch.cat(parts)}, facts)
