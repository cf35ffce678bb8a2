"""Clips of the symbols world, decoded, and what the judge says of them as a table."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from filmstill.artifacts import EVAL_PROMPTS
from filmstill.evaluate.bench import SampledClips
from filmstill.models.codec import DctCodec
from filmstill.runtime.tensor_files import load_tensors
from filmstill.worlds.grammar import ATTRIBUTES, Attributes, parse_all
from filmstill.worlds.judge import Judgement

JUDGED = ("all_attributes", *ATTRIBUTES, "fidelity")  # columns: what is right, 0 or 1, and fidelity in dB


@dataclass(frozen=True)
class DecodedClips:
    """N clips of an arm.

    rows: of the manifest. video: [N, F, 3, 32, 32] in [0, 1]. asked: what each prompt names. failed: which are not
    finite, [N]; they are black.
    """

    rows: pd.DataFrame
    video: Tensor
    asked: list[Attributes]
    failed: np.ndarray

    @classmethod
    def of(cls, samples: SampledClips, arm: str, codec: DctCodec) -> "DecodedClips":
        """Decode the latents of an arm."""
        rows = samples.of_arm(arm)
        lost = set(samples.failed[["arm", "prompt_id", "seed"]].itertuples(index=False, name=None))
        failed = [clip in lost for clip in rows[["arm", "prompt_id", "seed"]].itertuples(index=False, name=None)]
        asked = parse_all(rows["prompt"].tolist(), EVAL_PROMPTS)
        return cls(rows, _decoded(samples.folder, rows, codec), asked, np.array(failed, dtype=bool))

    def table(self, judgement: Judgement) -> pd.DataFrame:
        """Columns JUDGED of the clips' `judgement`, one row per clip. A failed clip scores 0, fidelity included."""
        scores = torch.cat([judgement.all_right[:, None], judgement.right, judgement.fidelity[:, None]], dim=1)
        table = pd.DataFrame(scores.double().numpy(), columns=list(JUDGED))
        table[self.failed] = 0.0
        return table


def _decoded(folder: Path, rows: pd.DataFrame, codec: DctCodec) -> Tensor:
    """Decoded clips of manifest rows, in their order; a clip that is not finite becomes black."""
    shards = {shard: load_tensors(folder / shard)[0]["latents"] for shard in rows["shard"].unique()}
    latents = torch.stack([shards[shard][index] for shard, index in zip(rows["shard"], rows["index"], strict=True)])
    finite = latents.isfinite().flatten(1).all(dim=1)[:, None, None, None, None]
    return codec.decode(torch.where(finite, latents, torch.zeros_like(latents))) * finite
