"""The section `ode_pairs` of params.yaml."""

from dataclasses import dataclass

from filmstill.errors import require
from filmstill.params.keys import key


@dataclass
class OdePairs:
    """Trajectories of the teacher's sampler, kept at the sigmas where a student denoises."""

    prompts: int = key(192, "number of train prompts, each with one trajectory")
    sampling_steps: int = key(48, "Euler steps of the teacher's sampler")
    guidance_scale: float = key(3.0, "weight w of the teacher's guidance, uncond + w * (cond - uncond)")
    nodes: int = key(4, "points kept per trajectory, besides the clean end")
    shards: int = key(4, "number of files, made independently of one another")
    batch: int = key(8, "trajectories integrated together")

    def __post_init__(self) -> None:
        scale = self.guidance_scale
        require(scale >= 0, "guidance_scale", scale, "0 or a positive weight: 1 is no guidance")
        for name in ("prompts", "sampling_steps", "nodes", "shards", "batch"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
        steps = self.sampling_steps
        require(steps % self.nodes == 0, "nodes", self.nodes, f"a divisor of sampling_steps ({steps})")
        require(self.shards <= self.prompts, "shards", self.shards, f"at most prompts ({self.prompts})")
