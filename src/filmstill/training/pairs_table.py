"""The table of ODE pairs: prompts, shards and manifest. Does not import torch, which takes seconds."""

import json
from pathlib import Path

import pandas as pd

from filmstill.artifacts import TRAIN_PROMPTS
from filmstill.params.ode_pairs import OdePairs
from filmstill.prompts.store import load_prompts
from filmstill.runtime.safetensors_file import read_metadata
from filmstill.runtime.tables import write_table


def shard_names(params: OdePairs) -> list[str]:
    return [f"pairs-{number:04d}" for number in range(params.shards)]


def prompts_of(params: OdePairs) -> pd.DataFrame:
    """Columns id, prompt, text; one row per pair."""
    return load_prompts(TRAIN_PROMPTS, params.prompts, "ode_pairs.prompts")


def write_manifest(params: OdePairs, folder: Path, shards: list[Path]) -> None:
    """Write manifest.parquet (id, text, shard, row): one row per pair, in the order of the shards' latents."""
    prompts = prompts_of(params).set_index("id")
    rows = []
    for shard in shards:
        ids = json.loads(read_metadata(shard)["ids"])  # without checking the digest: readers of the latents do
        rows += [{"id": i, "text": prompts.loc[i, "text"], "shard": shard.name, "row": n} for n, i in enumerate(ids)]
    write_table(folder / "manifest.parquet", pd.DataFrame(rows))
