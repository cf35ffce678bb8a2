"""The machine of a plan: kind and number of GPUs, and how networks are sharded over them."""

from dataclasses import dataclass

from filmstill.cluster.config import SHARDINGS
from filmstill.errors import require
from filmstill.runtime.gpus import GPUS, Gpu

USABLE = 0.9  # share of a GPU's memory for tensors: CUDA, its libraries' workspaces and fragmentation take the rest


@dataclass(frozen=True)
class Machine:
    """`gpus` GPUs of one kind.

    sharding: "none" replicates networks on every GPU; "full" shards weights, gradients and optimizer state over all
    GPUs and gathers them layer by layer (FSDP2); "hybrid" does the same within each node.
    offload: frozen networks stay in host memory and are copied to the GPU layer by layer.
    efficiency: share of the data sheet's speed that training and sampling reach (model FLOP utilisation).

    Raises FilmstillError for a machine that cannot exist.
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
        """Number of GPUs that a trained network's state is sharded over."""
        return {"none": 1, "hybrid": min(self.gpus, self.gpus_per_node), "full": self.gpus}[self.sharding]

    def seconds(self, flops: float, gpus: int) -> float:
        """Time that `gpus` GPUs need for `flops` operations."""
        return flops / (gpus * self.gpu.speed * self.efficiency)
