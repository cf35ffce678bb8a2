"""The section `compute` of params.yaml: what the numbers are computed on."""

from dataclasses import dataclass

from filmstill.errors import require

DEVICES, PRECISIONS = ("cpu", "cuda"), ("float32", "bfloat16")


@dataclass
class Compute:
    """What the numbers are computed on. Threads and micro-batches are parameters because they change the last bits."""

    threads: int = 2
    device: str = "cpu"
    precision: str = "float32"  # of matrix products and frozen weights; weights in training stay float32
    activation_checkpointing: bool = (
        False  # compute a layer's activations again in the backward pass instead of keeping them
    )
    micro_batch: int | None = None  # samples a pass of ode_init and distill, gradients added up; null: the whole batch

    def __post_init__(self) -> None:
        require(self.threads > 0, "threads", self.threads, "a positive integer")
        require(self.device in DEVICES, "device", self.device, f"one of {', '.join(DEVICES)}")
        require(self.precision in PRECISIONS, "precision", self.precision, f"one of {', '.join(PRECISIONS)}")
        size = self.micro_batch
        require(size is None or size > 0, "micro_batch", size, "null or a positive integer")


def micro_batches(batch: int, micro_batch: int | None, key: str, rank: int, processes: int) -> list[range]:
    """One process's samples of a batch, in parts whose gradients are added up: batch = part x processes x parts.

    micro_batch: samples a part; None: as many as make it one. key: what the batch is called in params.yaml, for the
    refusal of one that does not divide.
    """
    part = micro_batch or max(batch // processes, 1)
    many = f"{processes} process{'es' * (processes > 1)}"
    require(batch % (part * processes) == 0, key, batch, f"a multiple of {part} samples (compute.micro_batch) x {many}")
    return [range(start, start + part) for start in range(rank * part, batch, part * processes)]
