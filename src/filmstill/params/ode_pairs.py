"""Parameters of the ode_pairs stage."""

from dataclasses import dataclass

from filmstill.errors import require


@dataclass
class OdePairs:
    """Trajectories of the teacher's sampler, kept at the nodes a student may stand at."""

    prompts: int = 192
    sampling_steps: int = 48  # Euler steps of the sampler
    guidance_scale: float = 3.0  # uncond + w*(cond - uncond)
    nodes: int = 4  # trajectory points kept, besides the clean end
    shards: int = 4  # files, made independently of one another
    batch: int = 8  # trajectories integrated together: what a core's cache holds

    def __post_init__(self) -> None:
        require(
            self.guidance_scale >= 0, "guidance_scale", self.guidance_scale, "0 or a positive weight: 1 is no guidance"
        )
        for name in ("prompts", "sampling_steps", "nodes", "shards", "batch"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
        require(
            self.sampling_steps % self.nodes == 0,
            "nodes",
            self.nodes,
            f"a divisor of sampling_steps ({self.sampling_steps})",
        )
        require(self.shards <= self.prompts, "shards", self.shards, f"at most prompts ({self.prompts})")
