"""Parameters of the ode_pairs stage."""

from dataclasses import dataclass

from filmstill.params.load import require


@dataclass
class OdePairs:
    """Trajectories of the teacher's sampler, kept at the nodes a student may stand at."""

    prompts: int = 192
    steps: int = 48  # Euler steps of the sampler
    guidance: float = 3.0  # uncond + w*(cond - uncond)
    nodes: int = 4  # trajectory points kept, besides the clean end
    shards: int = 4  # files, made independently of one another
    batch: int = 8  # trajectories integrated together: what a core's cache holds

    def __post_init__(self) -> None:
        require(self.guidance >= 0, "guidance", self.guidance, "0 or a positive weight: 1 is no guidance")
        for name in ("prompts", "steps", "nodes", "shards", "batch"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
        require(self.steps % self.nodes == 0, "nodes", self.nodes, f"a divisor of steps ({self.steps})")
        require(self.shards <= self.prompts, "shards", self.shards, f"at most prompts ({self.prompts})")
