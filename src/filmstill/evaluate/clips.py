"""The samples artifact: latents, mp4 clips, a manifest and the timing, each one row a clip."""

import json
from pathlib import Path

import pandas as pd
import torch

from filmstill.evaluate.arms import requests
from filmstill.models.codec import Codec
from filmstill.params.samples import Samples
from filmstill.runtime.files import load_tensors, write_table
from filmstill.runtime.progress import progress
from filmstill.runtime.video import save_video
from filmstill.runtime.workbench import publish


def write_samples(params: Samples, codec: Codec, fps: int, shards: dict[str, Path], folder: Path) -> None:
    """Turn the finished shards of all arms into the artifact in `folder`."""
    clips, timing, failed = [], [], []
    total = sum(len(requests(params, arm)) for arm in shards)
    with progress("mp4", total, unit="clip") as bar:
        for arm, shard in shards.items():
            tensors, _ = load_tensors(shard)
            name = f"latents/{arm}-0000.safetensors"
            (folder / "latents").mkdir(parents=True, exist_ok=True)
            publish(shard, folder / name)
            clock = json.loads(shard.with_suffix(".json").read_text())
            table = requests(params, arm)
            for row, (request, latents) in enumerate(zip(table.itertuples(), tensors["latents"], strict=True)):
                video = f"video/{arm}/{row:05d}.mp4"
                clip = {"arm": arm, "prompt_id": request.id, "prompt": request.prompt, "seed": request.seed}
                clips.append({**clip, "shard": name, "index": row, "video": video})
                of_clip = {name: clock[name][row] for name in ("seconds", "network_seconds")}
                timing.append({**clip, **clock, **of_clip})
                if not latents.isfinite().all():
                    failed.append(clip)
                    latents = torch.zeros_like(latents)
                save_video(codec.decode(latents[None])[0].cpu(), folder / video, fps)
                bar.update()
    columns = ["arm", "prompt_id", "prompt", "seed"]
    for name, rows in (("manifest", clips), ("timing", timing), ("failed", pd.DataFrame(failed, columns=columns))):
        write_table(folder / f"{name}.parquet", pd.DataFrame(rows))
