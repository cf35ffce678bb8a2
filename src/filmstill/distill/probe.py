"""A look at a student in training: samples of a few train prompts, their sheet, their score and the gate.

In the open world nobody judges what a clip shows: there the score is left out.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from filmstill.artifacts import TRAIN_PROMPTS
from filmstill.diffusion.rollout import RolloutPlan, rollout
from filmstill.distill.setup import Setup
from filmstill.distill.sheet import save_sheet
from filmstill.errors import GateError
from filmstill.models.codec import Codec
from filmstill.models.dit import VideoDiT
from filmstill.params.gates import Gate
from filmstill.params.shared import DIGITS, World
from filmstill.prompts.store import load_prompts
from filmstill.runtime import randomness
from filmstill.runtime.distributed import agreed, is_first
from filmstill.worlds.grammar import Attributes, parse_all
from filmstill.worlds.judge import all_right

SHEET_ROWS = 6


@dataclass(frozen=True)
class Probe:
    """`shown` is what the prompts ask for (None: unknown), `texts` [N, text_len, text_dim] are their encodings."""

    shown: list[Attributes] | None
    texts: Tensor
    codec: Codec
    world: World
    plan: RolloutPlan
    latent_shape: tuple[int, int, int, int]  # F, C, H, W
    seed: int

    @classmethod
    def of(cls, setup: Setup, gate: Gate, stage: str) -> "Probe":
        """Samples of the first `gate.prompts` train prompts."""
        asked = load_prompts(TRAIN_PROMPTS, gate.prompts, f"{stage}.gate.prompts")
        shown = parse_all(asked["prompt"].tolist(), TRAIN_PROMPTS) if setup.world.name == DIGITS else None
        texts = setup.encoded(asked["text"].tolist())
        return cls(shown, texts, setup.codec(), setup.world, setup.plan, setup.latent_shape, setup.seed)

    def save_sheet(self, model: VideoDiT, path: Path) -> None:
        """Every process of a job must ask: the network may lie on all of them."""
        video = self._video(model, SHEET_ROWS).cpu()
        if is_first():
            save_sheet(video, path)

    def score(self, model: VideoDiT) -> dict[str, float]:
        """`all_attributes`: share of clips whose digit, colour and motion are all right; {} where nobody can tell."""
        if self.shown is None:
            return {}
        right = all_right(self._video(model, len(self.shown)), self.shown, self.world)
        return agreed({"all_attributes": right.all(dim=1).float().mean().item()})

    @torch.no_grad()
    def _video(self, model: VideoDiT, count: int) -> Tensor:
        texts = self.texts[:count]
        shape = (self.plan.noises, *self.latent_shape)
        noise = randomness.normal(shape, self.seed, "probe", 0, range(len(texts))).to(model.device)
        return self.codec.decode(torch.cat(list(rollout(model, model.read_text(texts), noise, self.plan)), dim=1))


def loss_ratio(losses: list[float]) -> float:
    """Mean of the last tenth of the losses over that of the first tenth."""
    tenth = max(len(losses) // 10, 1)
    return (sum(losses[-tenth:]) / tenth) / (sum(losses[:tenth]) / tenth)


def judged(gate: Gate, metrics: dict[str, float]) -> dict[str, object]:
    """What a training stage records: its metrics, the gate they met and whether they did."""
    return {**metrics, "gate": {**asdict(gate), "passed": not missed_by("", gate, metrics)}}


def check_gate(stage: str, gate: Gate, metrics: dict[str, float], made: Path) -> None:
    """Raise GateError when a metric misses the gate; it says by how much, and that `made` is kept."""
    if missed := missed_by(f"{stage}.", gate, metrics):
        raise GateError(
            f"{stage}: below its gate: {'; '.join(missed)}. Weights and metrics.json are kept in {made}: "
            f"train longer, or lower the gate in params.yaml, which publishes them without training again"
        )


def missed_by(prefix: str, gate: Gate, metrics: dict[str, float]) -> list[str]:
    """What misses the gate, and by how much."""
    missed = []
    score, least = metrics.get("all_attributes"), gate.min_all_attributes
    if score is not None and least is not None and score < least:
        short = least - score
        missed.append(f"all_attributes is {score:.3f}, {short:.3f} below {prefix}gate.min_all_attributes")
    if gate.max_loss_ratio is not None and metrics["loss_ratio"] > gate.max_loss_ratio:
        over = metrics["loss_ratio"] - gate.max_loss_ratio
        missed.append(f"loss_ratio is {metrics['loss_ratio']:.3f}, {over:.3f} above {prefix}gate.max_loss_ratio")
    return missed
