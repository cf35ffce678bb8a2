"""Rollouts and distillation runs of small networks, as the tests need them."""

from filmstill.diffusion.rollout import RolloutConfig
from filmstill.diffusion.schedule import FlowSchedule
from filmstill.models.attention import BlockCausal


def rollout_config(schedule: FlowSchedule, steps: int, attention: BlockCausal, context_sigma: float) -> RolloutConfig:
    """`RolloutConfig.of` for any attention, such as one that no parameter describes."""
    return RolloutConfig(tuple(schedule.nodes(steps).tolist()), attention, context_sigma)
