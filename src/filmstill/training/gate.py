"""The end of a student's training stage: write weights and metrics, and check the metrics against the gate."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from filmstill.errors import GateError
from filmstill.models.weights import save_model
from filmstill.params.gates import Gate
from filmstill.runtime.distributed import is_rank0
from filmstill.runtime.files import write_json
from filmstill.training.curves import publish_curves
from filmstill.training.setup import Setup


def finish(
    work: Path, file: Path, weights: dict[str, Tensor], setup: Setup, gate: Gate, metrics: dict[str, Any]
) -> None:
    """Write what a training stage publishes: weights, metrics.json, curves and sheets.

    Collective: every rank must call it.
    work: the stage's work folder. file: path of the weights, in a folder named after the stage; everything else is
    written beside it. Raises GateError if a metric misses the gate.
    """
    save_model(file, weights, setup.config, setup.facts())
    if is_rank0():
        write_json(file.parent / "metrics.json", _with_gate(gate, metrics))
        publish_curves(work, file.parent)
    _check(gate, metrics, file.parent)


def loss_ratio(losses: list[float]) -> float:
    """Mean of the last tenth of the losses divided by the mean of the first tenth."""
    tenth = max(len(losses) // 10, 1)
    return (sum(losses[-tenth:]) / tenth) / (sum(losses[:tenth]) / tenth)


def _with_gate(gate: Gate, metrics: dict[str, Any]) -> dict[str, object]:
    """The metrics, with the gate and whether they pass it."""
    return {**metrics, "gate": {**asdict(gate), "passed": not _missed("", gate, metrics)}}


def _check(gate: Gate, metrics: dict[str, Any], folder: Path) -> None:
    """Raise GateError if a metric misses the gate; the message has by how much and where the results are kept."""
    stage = folder.name
    if missed := _missed(f"{stage}.", gate, metrics):
        raise GateError(
            f"{stage}: misses its gate: {'; '.join(missed)}. Weights and metrics.json are kept in {folder}: "
            f"train longer, or lower the gate in params.yaml, which publishes them without training again"
        )


def _missed(prefix: str, gate: Gate, metrics: dict[str, Any]) -> list[str]:
    """One message per metric that misses the gate, with the difference; parameters are named with `prefix`."""
    missed = []
    for metric, name, least in (
        ("all_attributes", "min_all_attributes", gate.min_all_attributes),
        ("stream", "min_stream", gate.min_stream),
    ):
        score = metrics.get(metric)  # absent in the open world
        if score is not None and least is not None and score < least:
            missed.append(f"{metric} is {score:.3f}, {least - score:.3f} below {prefix}gate.{name}")
    if gate.max_loss_ratio is not None and metrics["loss_ratio"] > gate.max_loss_ratio:
        over = metrics["loss_ratio"] - gate.max_loss_ratio
        missed.append(f"loss_ratio is {metrics['loss_ratio']:.3f}, {over:.3f} above {prefix}gate.max_loss_ratio")
    return missed
