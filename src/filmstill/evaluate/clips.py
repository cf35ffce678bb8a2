"""The samples artifact: latents, mp4 clips, and the tables manifest, timing and failed with one row per clip."""

import json
from pathlib import Path

import pandas as pd

from filmstill.runtime.safetensors_file import read_metadata
from filmstill.runtime.tables import write_table
from filmstill.work.folder import publish

FINITE = "finite"  # header of an arm's latents: JSON list, whether each clip is free of infinity and NaN


def clip_of(shard: Path, row: int) -> Path:
    """Path of clip `row` of an arm, in the folder beside its shard."""
    return shard.with_suffix("") / f"{row:05d}.mp4"


def write_samples(requested: dict[str, pd.DataFrame], shards: list[Path], folder: Path) -> None:
    """Publish finished shards, one per arm in the order of `requested`, and their clips as the artifact in `folder`."""
    clips, timing, failed = [], [], []
    for (arm, table), shard in zip(requested.items(), shards, strict=True):
        name = f"latents/{arm}-0000.safetensors"
        publish(shard, folder / name)
        clock = json.loads(shard.with_suffix(".json").read_text())
        finite = json.loads(read_metadata(shard)[FINITE])
        for row, request in enumerate(table.itertuples()):
            video = f"video/{arm}/{row:05d}.mp4"
            clip = {"arm": arm, "prompt_id": request.id, "prompt": request.prompt, "seed": request.seed}
            clips.append({**clip, "shard": name, "index": row, "video": video})
            of_clip = {name: clock[name][row] for name in ("seconds", "network_seconds")}
            timing.append({**clip, **clock, **of_clip})
            if not finite[row]:
                failed.append(clip)
            publish(clip_of(shard, row), folder / video)
    columns = ["arm", "prompt_id", "prompt", "seed"]
    for name, rows in (("manifest", clips), ("timing", timing), ("failed", pd.DataFrame(failed, columns=columns))):
        write_table(folder / f"{name}.parquet", pd.DataFrame(rows))
