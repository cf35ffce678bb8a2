"""Rollout configurations for tests."""

from filmstill.diffusion.rollout import RolloutConfig
from filmstill.diffusion.schedule import FlowSchedule
from filmstill.models.attention import BlockCausal


def rollout_config(schedule: FlowSchedule, steps: int, attention: BlockCausal, context_sigma: float) -> RolloutConfig:
    """Like `RolloutConfig.of`, but for any attention, including ones that params.yaml cannot describe."""
    return RolloutConfig(tuple(schedule.nodes(steps).tolist()), attention, context_sigma)
