"""Self-Forcing distillation: the student trains on its own rollouts (arXiv:2506.08009, algorithm 1).

Notable: the rollout is the one that serves; every update has its own rollout, exit step, times and noise, all
by address; the exit step is the same for every block and sample of an update.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from filmstill.diffusion.rollout import RolloutPlan, rollout
from filmstill.distill.dmd import Dmd, Draw
from filmstill.distill.ema import Ema
from filmstill.distill.optimizers import set_learning_rate, warmup_then_decay
from filmstill.distill.order import batch_indices
from filmstill.distill.training import Rhythm, TrainState, train
from filmstill.models.dit import VideoDiT
from filmstill.params.distill import Distill
from filmstill.runtime import randomness

MAX_GRAD_NORM = 10.0


class SelfForcing:
    """The roles of one run: generator, its average, objective (teacher and critic), and where chance comes from."""

    def __init__(
        self,
        params: Distill,
        generator: VideoDiT,
        objective: Dmd,
        plan: RolloutPlan,
        texts: Tensor,
        latent_shape: tuple[int, int, int, int],
        seed: int,
    ) -> None:
        """texts [N, text_len, text_dim] of the train prompts; latent_shape (F, C, H, W)."""
        self.params = params
        self.generator = generator
        self.objective = objective
        self.plan = plan
        self.texts = texts
        self.latent_shape = latent_shape
        self.seed = seed
        self.ema = Ema(generator, params.ema)
        self.generator_optimizer = self._adamw(generator, params.lr)
        self.critic_optimizer = self._adamw(objective.critic, params.critic_lr)

    def _adamw(self, model: VideoDiT, lr: float) -> AdamW:
        betas = (self.params.beta1, self.params.beta2)
        return AdamW(model.parameters(), lr=lr, betas=betas, weight_decay=self.params.weight_decay)

    def state(self) -> TrainState:
        return TrainState(
            {"generator": self.generator, "critic": self.objective.critic},
            {"generator": self.generator_optimizer, "critic": self.critic_optimizer},
            {"generator": self.ema},
        )

    def step(self, index: int) -> dict[str, float]:
        """`critic_updates` critic updates, then one of the generator."""
        factor = warmup_then_decay(index, self.params.updates, 0, self.params.decay_share)
        set_learning_rate([self.generator_optimizer, self.critic_optimizer], factor)
        for update in range(self.params.critic_updates):
            critic_loss = self._update_critic(index, f"critic{update}")
        loss, norm = self._update_generator(index)
        self.ema.update(self.generator)
        return {"loss": loss, "critic_loss": critic_loss, "gradient_norm": norm}

    def _update_critic(self, index: int, update: str) -> float:
        with torch.no_grad():
            video, text = self._generate(index, update)
        loss = self.objective.critic_loss(video, text, self._draw(index, update))
        loss.backward()
        clip_grad_norm_(self.objective.critic.parameters(), MAX_GRAD_NORM)
        self.critic_optimizer.step()
        self.critic_optimizer.zero_grad()
        return loss.item()

    def _update_generator(self, index: int) -> tuple[float, float]:
        video, text = self._generate(index, "generator")
        loss = self.objective.generator_loss(video, text, self._draw(index, "generator"))
        loss.backward()
        norm = clip_grad_norm_(self.generator.parameters(), MAX_GRAD_NORM)
        self.generator_optimizer.step()
        self.generator_optimizer.zero_grad()
        return loss.item(), norm.item()

    def _generate(self, index: int, update: str) -> tuple[Tensor, Tensor]:
        """A rollout of the generator as it is now: (latents [B, F, C, H, W], text [B, text_len, text_dim])."""
        batch, purpose = self.params.batch, f"distill/{update}"
        chosen = batch_indices(len(self.texts), self.seed, f"{purpose}/prompts", index, batch)
        text = self.texts[chosen]
        shape = (self.plan.noises, *self.latent_shape)
        noise = randomness.normal(shape, self.seed, f"{purpose}/rollout", index, range(batch))
        exit_step = int(randomness.integers(len(self.plan.sigmas), (), self.seed, f"{purpose}/exit", index, [0]))
        blocks = rollout(self.generator, self.generator.read_text(text), noise, self.plan, exit_step)
        return torch.cat(list(blocks), dim=1), text

    def _draw(self, index: int, update: str) -> Draw:
        samples = range(self.params.batch)
        return Draw(
            randomness.uniform(self.seed, f"distill/{update}/time", index, samples),
            randomness.normal(self.latent_shape, self.seed, f"distill/{update}/noise", index, samples),
        )


def train_self_forcing(folder: Path, run: SelfForcing, draw_sheet: Callable[[Path], None]) -> list[float]:
    """Train in `folder`, returns every loss; afterwards `run.ema` is the student."""

    def sheet_of_average(path: Path) -> None:
        with run.ema.swapped_into(run.generator):
            draw_sheet(path)

    params = run.params
    rhythm = Rhythm(params.updates, params.checkpoint_every, params.sheet_every)
    return train("distill", folder, rhythm, run.state(), run.step, sheet_of_average)
