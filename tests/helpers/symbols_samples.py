"""A samples artifact of the symbols world, without its mp4 files, from clips that a test draws."""

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from filmstill.evaluate.bench import SampledClips
from filmstill.models.codec import DctCodec
from filmstill.params.student import Student
from filmstill.runtime import randomness
from filmstill.runtime.tables import write_table
from filmstill.runtime.tensor_files import save_tensors
from filmstill.worlds.grammar import Attributes
from filmstill.worlds.sentences import sentence

CODEC = DctCodec(torch.zeros(16), torch.ones(()))


def prompts_of(asked: list[Attributes]) -> list[str]:
    """A sentence per clip, the same for the same attributes."""
    return [sentence(each, randomness.generator(0, "symbols_samples", str(each))) for each in asked]


def rows_of(arm: str, asked: list[Attributes], groups: list[str], seeds: list[int]) -> pd.DataFrame:
    """Manifest rows of an arm, clip i at place i of its shard."""
    prompts = prompts_of(asked)
    columns = {"arm": arm, "prompt_id": [str(each) for each in asked], "prompt": prompts, "seed": seeds}
    return pd.DataFrame({**columns, "group": groups, "shard": f"{arm}.safetensors", "index": range(len(asked))})


def write_samples(folder: Path, videos: dict[str, Tensor], rows: dict[str, pd.DataFrame]) -> SampledClips:
    """Write clips [N, F, 3, 32, 32] by arm, and a table of timing of one round; NaN in a clip makes it a failed one."""
    failed = []
    for arm, video in videos.items():
        latents = CODEC.encode(video)
        save_tensors(folder / f"{arm}.safetensors", {"latents": latents}, {})
        failed.append(rows[arm][~latents.isfinite().flatten(1).all(dim=1).numpy()])
    seconds = {arm: 2.0 if arm == "teacher" else 0.1 for arm in videos}
    timing = pd.DataFrame(
        [
            {"arm": arm, "round": 0, "seconds": s, "network_seconds": s, "first_block_seconds": s / 4}
            for arm, s in seconds.items()
        ]
    ).assign(evaluations_per_clip=5.0)
    tables = {"manifest": pd.concat(rows.values()), "timing": timing, "failed": pd.concat(failed)}
    for name, table in tables.items():
        write_table(folder / f"{name}.parquet", table)
    CODEC.save(folder / "codec.safetensors")
    return SampledClips.read(folder, folder / "codec.safetensors", Student())
