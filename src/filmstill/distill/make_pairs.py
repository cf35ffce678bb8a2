"""Make ODE pairs: the teacher's trajectories from noise to clip, kept at the student's nodes.

Notable: a shard is a function of its number; every pair's noise is addressed by its prompt; the manifest
stores the schedule's nodes, which a training stage compares with its own.
"""

import json
from pathlib import Path

import pandas as pd
import torch

from filmstill.artifacts import TEACHER, TRAIN_PROMPTS
from filmstill.diffusion.noise import clip_noise
from filmstill.diffusion.sample import guided, sample
from filmstill.diffusion.schedule import FlowSchedule
from filmstill.models.text import HashedWords
from filmstill.models.weights import config_of, load_model
from filmstill.params.load import read_seed, section
from filmstill.params.ode_pairs import OdePairs
from filmstill.params.shared import Compute, Model, Schedule, World
from filmstill.prompts.store import load_prompts
from filmstill.runtime.compute import prepare
from filmstill.runtime.fanout import report_done
from filmstill.runtime.files import load_tensors, save_tensors, write_table
from filmstill.worlds.digits import latent_shape

BATCH = 8  # trajectories integrated together: what a core's cache holds


def shard_names(params: OdePairs) -> list[str]:
    return [f"pairs-{number:04d}" for number in range(params.shards)]


def make_shard(number: int, out: Path) -> None:
    """Write shard `number`: latents [n, nodes + 1, F, C, H, W] of its prompts, noisy to clean."""
    params, sizes, world = section(OdePairs, "ode_pairs"), section(Model, "model"), section(World, "world")
    schedule, seed = FlowSchedule(section(Schedule, "schedule").shift), read_seed()
    prepare(Compute(threads=1))  # shards run side by side
    shape = latent_shape(world)
    model, _ = load_model(TEACHER, config_of(sizes, shape[1]))
    encoder = HashedWords(sizes.text_len, sizes.text_dim)
    mine = _prompts(params).iloc[number :: params.shards]
    keep = [params.steps // params.nodes * node for node in range(params.nodes)]
    parts = []
    for start in range(0, len(mine), BATCH):
        rows = mine.iloc[start : start + BATCH]
        noise = clip_noise(rows["prompt"].tolist(), [seed] * len(rows), 1, shape)[:, 0]
        velocity = guided(model, encoder.encode(rows["text"].tolist()), encoder.encode([""]), params.guidance)
        parts.append(sample(velocity, noise, schedule, params.steps, keep))
        report_done(out, start + len(rows))
    sigmas = [*schedule.nodes(params.nodes).tolist(), 0.0]
    facts = {"ids": json.dumps(mine["id"].tolist()), "sigmas": json.dumps(sigmas)}
    save_tensors(out, {"latents": torch.cat(parts)}, facts)


def write_manifest(params: OdePairs, folder: Path, shards: list[Path]) -> None:
    """Check every shard and bind them: one row a pair, in the order of the latents."""
    prompts = _prompts(params).set_index("id")
    rows = []
    for shard in shards:
        _, facts = load_tensors(shard)
        ids = json.loads(facts["ids"])
        rows += [{"id": i, "text": prompts.loc[i, "text"], "shard": shard.name, "row": n} for n, i in enumerate(ids)]
    write_table(folder / "manifest.parquet", pd.DataFrame(rows))


def _prompts(params: OdePairs) -> pd.DataFrame:
    return load_prompts(TRAIN_PROMPTS, params.prompts, "ode_pairs.prompts")
