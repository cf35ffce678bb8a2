"""The section `ode_pairs` of params.yaml."""

from dataclasses import dataclass

from filmstill.errors import require
from filmstill.params.keys import check_intervals, key


@dataclass
class OdePairs:
    """Trajectories of the teacher's sampler, kept at the sigmas where a student denoises."""

    prompts: int = key(1200, "number of train prompts, each with one trajectory", "[1, 10000000]")
    sampling_steps: int = key(8, "Euler steps of the teacher's sampler", "[1, 10000]")
    guidance_scale: float = key(1.5, "weight w of the teacher's guidance, uncond + w * (cond - uncond)", "[0, 1000]")
    nodes: int = key(4, "points kept per trajectory, besides the clean end", "[1, 1000]")
    shards: int = key(4, "number of files, made independently of one another", "[1, 10000]")
    batch: int = key(8, "trajectories integrated together", "[1, 65536]")

    def __post_init__(self) -> None:
        check_intervals(self)
        steps = self.sampling_steps
        require(steps % self.nodes == 0, "nodes", self.nodes, f"a divisor of sampling_steps ({steps})")
        require(self.shards <= self.prompts, "shards", self.shards, f"at most prompts ({self.prompts})")
