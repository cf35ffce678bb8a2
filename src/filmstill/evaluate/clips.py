"""The samples artifact: latents, mp4 clips, tables manifest and failed with a row per clip, and the table of timing."""

import json
from pathlib import Path

import pandas as pd

from filmstill.evaluate.requests import CHANGE_COLUMNS, arm_of
from filmstill.runtime.safetensors_file import read_metadata
from filmstill.runtime.tables import write_table
from filmstill.work.folder import publish

TIMES = "times"  # header of the shard of timing, which has no tensors: JSON list of its table's rows
FINITE = "finite"  # header of an arm's latents: JSON list, whether each clip is free of infinity and NaN


def clip_of(shard: Path, row: int) -> Path:
    """Path of clip `row` of a shard, in the folder beside it."""
    return shard.with_suffix("") / f"{row:05d}.mp4"


def write_samples(requested: dict[str, pd.DataFrame], shards: list[Path], timing: Path, folder: Path) -> None:
    """Publish finished shards and their clips as the artifact in `folder`.

    requested: rows of every shard, in the order of `shards`, by its name. timing: the shard of timing. The manifest has
    the columns CHANGE_COLUMNS where an arm has them, empty for the others.
    """
    clips, failed = [], []
    for (name, table), shard in zip(requested.items(), shards, strict=True):
        latents, arm = f"latents/{name}.safetensors", arm_of(name)
        publish(shard, folder / latents)
        finite = json.loads(read_metadata(shard)[FINITE])
        for index, (row, request) in enumerate(zip(table.index, table.itertuples(), strict=True)):
            video = f"video/{arm}/{row:05d}.mp4"
            clip = {"arm": arm, "prompt_id": request.id, "prompt": request.prompt, "seed": request.seed}
            change = {column: getattr(request, column) for column in CHANGE_COLUMNS if column in table}
            clips.append({**clip, "group": request.group, "shard": latents, "index": index, "video": video, **change})
            if not finite[index]:
                failed.append(clip)
            publish(clip_of(shard, index), folder / video)
    columns = ["arm", "prompt_id", "prompt", "seed"]
    tables = {
        "manifest": clips,
        "timing": json.loads(read_metadata(timing)[TIMES]),
        "failed": pd.DataFrame(failed, columns=columns),
    }
    for name, rows in tables.items():
        write_table(folder / f"{name}.parquet", pd.DataFrame(rows))
