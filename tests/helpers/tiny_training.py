"""Networks, rollout and distillation run of a few thousand weights, for the tests of training."""

from dataclasses import replace

import torch

from filmstill.diffusion.schedule import FlowSchedule
from filmstill.models.attention import BlockCausal
from filmstill.models.dit import VideoDiT
from filmstill.models.text import HashedWords
from filmstill.objectives.dmd import Objective
from filmstill.params.compute import micro_batches
from filmstill.params.distill import Distill
from filmstill.runtime import distributed
from filmstill.training.carried_streams import CarriedStreams
from filmstill.training.distillation import Distillation
from filmstill.training.loss_windows import LossWindows
from filmstill.training.student_clips import StudentClips
from goldens import TINY, tiny
from rollouts import rollout_config

SCHEDULE, SHAPE = FlowSchedule(5.0), (6, TINY.in_channels, 4, 6)
ROLLOUT = rollout_config(SCHEDULE, 2, BlockCausal(3), 0.0)
WINDOWED = BlockCausal(3, window_frames=6)  # where rollouts are carried on
ENCODER = HashedWords(8, TINY.text_dim)
PROMPTS = [f"a red {word} bobs" for word in ("one", "two", "three", "four", "five")]
LONG = {"rollout_frames": 15, "first_window_share": 0.3}  # of Distill: windows that start at frame 0, 3, 6 or 9
CARRIED = {"rollout_frames": 18, "carry_on": True, "prompt_switch": 0.5}  # three steps per stream
PLAIN = {"given": 0.0, "prompt_switch": 0.0}  # of OdeInit: one prompt per sample, no given frame
STRIDE = 3


Networks = tuple[VideoDiT, VideoDiT, VideoDiT]


def networks(precision: torch.dtype = torch.float32, activation_checkpointing: bool = False) -> Networks:
    """Generator, critic and frozen teacher."""
    models = tiny("causal"), tiny("bidir"), tiny("bidir")
    for model in models:
        model.precision, model.activation_checkpointing = precision, activation_checkpointing
    models[2].freeze()
    return models


def alone(batch: int, micro_batch: int | None) -> list[range]:
    """Micro-batches of a job with one rank."""
    return micro_batches(batch, micro_batch, "batch", 0, 1)


def distillation(models: Networks, micro_batch: int | None, **changes) -> Distillation:
    """A run of four steps of four samples on one rank, one critic update each. changes: of the parameters."""
    generator, critic, teacher = models
    params = Distill(steps=4, batch=4, critic_updates=1, lr_decay_fraction=0.0, **{"prompt_switch": 0.0, **changes})
    objective = Objective(teacher, critic, SCHEDULE, 3.0, ENCODER.encode([""]))
    windows = LossWindows.of(params, SHAPE[0], STRIDE)
    mine = micro_batches(4, micro_batch, "batch", distributed.rank(), distributed.world_size())
    config = replace(ROLLOUT, attention=WINDOWED) if params.carry_on else ROLLOUT
    streams = CarriedStreams.of(params, SHAPE, WINDOWED, mine, generator.device)
    clips = StudentClips(
        generator, config, ENCODER, PROMPTS, SHAPE, 0, params.batch, windows, params.prompt_switch, streams=streams
    )
    return Distillation(params, objective, clips, alone(4, micro_batch))
