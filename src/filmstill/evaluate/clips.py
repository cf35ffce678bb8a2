"""The samples artifact: latents, mp4 clips, a manifest and the timing, each one row a clip."""

import json
from pathlib import Path

import pandas as pd

from filmstill.runtime.safetensors_file import read_metadata
from filmstill.runtime.tables import write_table
from filmstill.work.folder import publish

FINITE = "finite"  # in the header of an arm's latents: for every clip, whether it has neither infinity nor NaN


def clip_of(shard: Path, row: int) -> Path:
    """Where an arm's clips are, beside its shard."""
    return shard.with_suffix("") / f"{row:05d}.mp4"


def write_samples(asked: dict[str, pd.DataFrame], shards: list[Path], folder: Path) -> None:
    """Bind the finished shards of all arms, in the order of `asked`, and their clips to the artifact in `folder`."""
    clips, timing, failed = [], [], []
    for (arm, table), shard in zip(asked.items(), shards, strict=True):
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
