"""The machine that a plan is made for: how many GPUs of which kind, and how networks are sharded over them."""

from dataclasses import dataclass

from filmstill.cluster.config import SHARDINGS
from filmstill.errors import require
from filmstill.runtime.gpus import GPUS, Gpu

USABLE = 0.9  # share of a GPU's memory: CUDA, its libraries' workspaces and fragmentation take the rest


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
