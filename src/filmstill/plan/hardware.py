"""The machine that a plan is made for: GPUs as data, and how networks lie on them.

Memory is what torch reports as a card's total capacity (its out-of-memory messages say so), which is less than the name
promises. Speed is that of dense bfloat16 products, from the vendor's data sheet.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from filmstill.params.load import require

if TYPE_CHECKING:
    import torch

GIB = 2.0**30
USABLE = 0.9  # of a GPU's memory: the rest goes to CUDA, its libraries' workspaces and fragmentation

SHARDINGS = ("none", "hybrid", "full")


@dataclass(frozen=True)
class Gpu:
    """`memory` in bytes, `speed` in floating-point operations a second."""

    memory: float
    speed: float


GPUS = {
    "rtx4090-24gb": Gpu(23.5 * GIB, 165.2e12),  # Ada GPU architecture whitepaper, accumulated in float32
    "a100-40gb": Gpu(39.4 * GIB, 312e12),  # A100 data sheet
    "l40s-48gb": Gpu(44.4 * GIB, 362e12),  # L40S data sheet
    "a100-80gb": Gpu(79.1 * GIB, 312e12),  # A100 data sheet
    "h100-80gb": Gpu(79.1 * GIB, 989.4e12),  # H100 SXM data sheet: 1,979 with sparsity
    "h200-141gb": Gpu(139.8 * GIB, 989.4e12),  # H200 SXM data sheet: 1,979 with sparsity
    "b200-180gb": Gpu(178.3 * GIB, 2250e12),  # DGX B200 data sheet: eight GPUs, 36 PFLOP/s with sparsity
}


def speed_of(device: "torch.device") -> float | None:
    """Speed of the GPU that this is; None: a CPU, or a card that is not in the table."""
    if device.type != "cuda":
        return None
    import torch

    words = torch.cuda.get_device_name(device).lower().replace("-", " ").split()
    return next((gpu.speed for kind, gpu in GPUS.items() if kind.split("-")[0].removeprefix("rtx") in words), None)


@dataclass(frozen=True)
class Machine:
    """`gpus` cards of one kind, and what is assumed of them.

    sharding: none: every GPU holds whole networks; full: what a network keeps (weights, gradients, optimizer) is spread
    over all GPUs and gathered a layer at a time (FSDP2); hybrid: the same within a node.
    offload: frozen networks wait in the host's memory and come a layer at a time.
    efficiency: share of the data sheet's speed that training and sampling reach (model FLOP utilisation).
    """

    kind: str
    gpus: int = 1
    gpus_per_node: int = 8
    sharding: str = "none"
    offload: bool = False
    efficiency: float = 0.4

    def __post_init__(self) -> None:
        require(self.kind in GPUS, "--gpu", self.kind, f"one of {', '.join(GPUS)}")
        require(self.gpus > 0, "--gpus", self.gpus, "a positive integer")
        require(self.gpus_per_node > 0, "--gpus-per-node", self.gpus_per_node, "a positive integer")
        require(self.sharding in SHARDINGS, "--sharding", self.sharding, f"one of {', '.join(SHARDINGS)}")
        require(0 < self.efficiency <= 1, "--efficiency", self.efficiency, "a share in (0, 1]")
        whole = self.gpus <= self.gpus_per_node or self.gpus % self.gpus_per_node == 0
        allowed = f"whole nodes for --sharding hybrid: a multiple of --gpus-per-node ({self.gpus_per_node})"
        require(self.sharding != "hybrid" or whole, "--gpus", self.gpus, allowed)

    @property
    def gpu(self) -> Gpu:
        return GPUS[self.kind]

    @property
    def shards(self) -> int:
        """GPUs that what a network keeps is spread over."""
        return {"none": 1, "hybrid": min(self.gpus, self.gpus_per_node), "full": self.gpus}[self.sharding]

    def seconds(self, flops: float, gpus: int) -> float:
        """How long `gpus` of them take for so many operations."""
        return flops / (gpus * self.gpu.speed * self.efficiency)
