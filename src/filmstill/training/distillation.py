"""Distillation of the student: critic and generator are updated in turns on the student's own clips.

Each step makes `critic_updates` updates of the critic, then one of the generator (two time-scale update rule of DMD2,
arXiv:2405.14867; algorithm 1 of Self Forcing, arXiv:2506.08009). The objective computes both losses.

The clips are whole rollouts or, with `distill.rollout_frames`, also the ends of longer ones: a student that has only
seen contexts of one clip does not keep a stream together. The objective sees a clip in either case.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import AdamW

from filmstill.models.dit import VideoDiT
from filmstill.models.experts import Denoiser
from filmstill.objectives.denoising import Draw
from filmstill.params.distill import Distill
from filmstill.params.shared import guidance_branches
from filmstill.runtime import distributed
from filmstill.runtime.stopwatch import part
from filmstill.training.ema import Ema
from filmstill.training.loop import Intervals, TrainState, train
from filmstill.training.optimizers import adamw, clip_gradients, set_learning_rate, warmup_then_decay
from filmstill.training.student_clips import StudentClips
from filmstill.training.telemetry import StepCost


class DistillationObjective(Protocol):
    """An objective (filmstill/objectives/<name>.py): losses of generated latents [B, F, C, H, W].

    text: [B, text_len, text_dim]. draw: times and noise for the score. counted: the frames that the loss is on, bool
    [F]. Both losses are means over the micro-batch.
    """

    @property
    def teacher(self) -> Denoiser: ...

    @property
    def critic(self) -> VideoDiT: ...

    def generator_loss(self, video: Tensor, text: Tensor, draw: Draw, counted: Tensor) -> Tensor: ...

    def critic_loss(self, video: Tensor, text: Tensor, draw: Draw, counted: Tensor) -> Tensor: ...


class Distillation:
    """One run: the generator and its average, critic and teacher (in the objective), clips, and optimizers."""

    def __init__(
        self,
        params: Distill,
        objective: DistillationObjective,
        clips: StudentClips,
        micro_batches: list[range],
    ) -> None:
        """micro_batches: this rank's samples of a batch, one range per forward pass."""
        self.params = params
        self.objective = objective
        self.clips = clips
        self.generator = clips.generator
        self.micro_batches = micro_batches
        self.ema = Ema(self.generator, params.ema, params.ema_start)
        self.generator_optimizer = self._adamw(self.generator, params.lr)
        self.critic_optimizer = self._adamw(objective.critic, params.critic_lr)

    def _adamw(self, model: VideoDiT, lr: float) -> AdamW:
        betas = (self.params.beta1, self.params.beta2)
        return adamw(model.named_parameters(), lr, betas, self.params.weight_decay)

    def updates(self) -> Iterator[tuple[int, str]]:
        """(step, update) for every update of the run, in order."""
        for index in range(self.params.steps):
            for update in self.params.updates():
                yield index, update

    def state(self) -> TrainState:
        """The state to checkpoint. The teacher is frozen and has none."""
        return TrainState(
            {"generator": self.generator, "critic": self.objective.critic},
            {"generator": self.generator_optimizer, "critic": self.critic_optimizer},
            {"generator": self.ema},
            {"streams": self.clips.streams.state} if self.clips.streams else {},
        )

    def cost(self) -> StepCost:
        """Work per step, for telemetry; its operations depend on the windows and exit steps that its updates draw."""
        branches = guidance_branches(self.params.guidance_scale)
        return StepCost.of_distillation(self.clips, self.objective.teacher.config, branches, self.params.critics())

    def step(self, index: int) -> dict[str, float]:
        """Make `critic_updates` updates of the critic, then one of the generator; return the scalars to log."""
        factor = warmup_then_decay(index, self.params.steps, 0, self.params.lr_decay_fraction)
        set_learning_rate([self.generator_optimizer, self.critic_optimizer], factor)
        for update in self.params.critics():
            critic_loss = self._update_critic(index, update)
        loss, norm = self._update_generator(index)
        with part("optimizer"):
            self.ema.update(self.generator, index)
        loss, critic_loss = distributed.all_reduce_sum(loss, critic_loss)
        return {"loss": loss, "critic_loss": critic_loss, "gradient_norm": norm}

    def _update_critic(self, index: int, update: str) -> float:
        """One critic update on newly generated clips; returns this rank's share of the batch's loss."""
        losses = []
        for samples in self.micro_batches:
            with torch.no_grad():
                clips = self.clips.generate(index, update, samples)
            draw = self.clips.draw(index, update, samples)
            with part("critic"):
                loss = self.objective.critic_loss(clips.latents, clips.text, draw, clips.counted)
                losses.append(self._backward(loss, samples))
        self._apply(self.critic_optimizer, self.objective.critic)
        return sum(losses)

    def _update_generator(self, index: int) -> tuple[float, float]:
        """One generator update; returns this rank's share of the batch's loss, and the gradient norm over all ranks."""
        losses = []
        for samples in self.micro_batches:
            clips = self.clips.generate(index, "generator", samples)
            draw = self.clips.draw(index, "generator", samples)
            loss = self.objective.generator_loss(clips.latents, clips.text, draw, clips.counted)
            with part("backward"):
                losses.append(self._backward(loss, samples))
        return sum(losses), self._apply(self.generator_optimizer, self.generator)

    def _apply(self, optimizer: AdamW, model: VideoDiT) -> float:
        """Clip the gradients and take an optimizer step; returns the gradient norm before clipping."""
        with part("optimizer"):
            norm = clip_gradients(model, self.params.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
        return norm

    def _backward(self, loss: Tensor, samples: range) -> float:
        """Accumulate gradients of a micro-batch's mean loss times its share of the batch; returns this product."""
        share = loss * (len(samples) / self.params.batch)
        share.backward()
        return share.item()


def train_distillation(folder: Path, run: Distillation, draw_sheet: Callable[[Path], None]) -> list[float]:
    """Train in `folder`, resuming from a checkpoint there; return every step's generator loss.

    The student is `run.ema` afterwards.
    """

    def sheet_of_average(path: Path) -> None:
        with run.ema.swapped_into(run.generator):
            draw_sheet(path)

    params = run.params
    intervals = Intervals(params.steps, params.checkpoint_every, params.sheet_every)
    return train("distill", folder, intervals, run.state(), run.step, run.cost(), sheet_of_average)
