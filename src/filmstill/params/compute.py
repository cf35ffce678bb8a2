"""The section `compute` of params.yaml: what the numbers are computed on."""

from dataclasses import dataclass

from filmstill.errors import require
from filmstill.params.keys import check_intervals, key

DEVICES, PRECISIONS, MATMULS = ("cpu", "cuda"), ("float32", "bfloat16"), ("highest", "high", "medium")


@dataclass
class Compute:
    """What the numbers are computed on. Threads and micro-batches are parameters because they change the last bits."""

    threads: int = key(2, "number of CPU threads of each process", "[1, 512]")
    device: str = key("cpu", "device to compute on: cpu or cuda")
    precision: str = key(
        "float32", "matrix products and frozen weights: float32 or bfloat16; trained weights stay float32"
    )
    float32_matmul: str = key(
        "medium",
        "float32 matrix products: highest, high or medium (bfloat16); "
        "below highest, a CPU's attention takes O(L^2) memory",
    )
    activation_checkpointing: bool = key(False, "true: recompute each layer's activations in the backward pass")
    micro_batch: int | None = key(
        None, "samples per forward pass in ode_init and distill; null: all of a rank's", "[1, 65536]"
    )

    def __post_init__(self) -> None:
        check_intervals(self)
        require(self.device in DEVICES, "device", self.device, f"one of {', '.join(DEVICES)}")
        require(self.float32_matmul in MATMULS, "float32_matmul", self.float32_matmul, f"one of {', '.join(MATMULS)}")
        require(self.precision in PRECISIONS, "precision", self.precision, f"one of {', '.join(PRECISIONS)}")


def micro_batches(batch: int, micro_batch: int | None, batch_key: str, rank: int, world_size: int) -> list[range]:
    """One rank's samples of a batch, one range per forward pass; their gradients are accumulated.

    micro_batch: samples per forward pass; None: the rank's whole share. batch_key: the batch's key in params.yaml.
    Raises FilmstillError unless batch = micro_batch x world_size x passes.
    """
    size = micro_batch or max(batch // world_size, 1)
    ranks = f"{world_size} rank{'s' * (world_size > 1)}"
    allowed = f"a multiple of {size} samples (compute.micro_batch) x {ranks}"
    require(batch % (size * world_size) == 0, batch_key, batch, allowed)
    return [range(start, start + size) for start in range(rank * size, batch, size * world_size)]
