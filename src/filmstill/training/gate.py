"""How a student's training ends: weights, metrics and the gate they must meet."""

from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from filmstill.errors import GateError
from filmstill.models.weights import save_model
from filmstill.params.gates import Gate
from filmstill.runtime.distributed import is_rank0
from filmstill.runtime.files import write_json
from filmstill.training.curves import publish_curves
from filmstill.training.setup import Setup


def finish(
    work: Path, file: Path, weights: dict[str, Tensor], setup: Setup, gate: Gate, metrics: dict[str, float]
) -> None:
    """Write what a training stage publishes: weights, metrics.json, curves and sheets. Every rank must call it.

    work: the stage's work folder. file: where its weights go, in a folder named after the stage; the rest goes beside
    them. Raises GateError when a metric misses the gate.
    """
    save_model(file, weights, setup.config, setup.facts())
    if is_rank0():
        write_json(file.parent / "metrics.json", _judged(gate, metrics))
        publish_curves(work, file.parent)
    _check(gate, metrics, file.parent)


def loss_ratio(losses: list[float]) -> float:
    """Mean of the last tenth of the losses over that of the first tenth."""
    tenth = max(len(losses) // 10, 1)
    return (sum(losses[-tenth:]) / tenth) / (sum(losses[:tenth]) / tenth)


def _judged(gate: Gate, metrics: dict[str, float]) -> dict[str, object]:
    """What a training stage records: its metrics, the gate they met and whether they did."""
    return {**metrics, "gate": {**asdict(gate), "passed": not _missed("", gate, metrics)}}


def _check(gate: Gate, metrics: dict[str, float], made: Path) -> None:
    """Raise GateError when a metric misses the gate; it says by how much, and that `made` is kept."""
    stage = made.name
    if missed := _missed(f"{stage}.", gate, metrics):
        raise GateError(
            f"{stage}: below its gate: {'; '.join(missed)}. Weights and metrics.json are kept in {made}: "
            f"train longer, or lower the gate in params.yaml, which publishes them without training again"
        )


def _missed(prefix: str, gate: Gate, metrics: dict[str, float]) -> list[str]:
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
