"""Self-Forcing distillation: the student trains on its own rollouts (arXiv:2506.08009, algorithm 1).

Notable: the rollout is the one that serves; every update has its own rollout, exit step, times and noise, all
by address; the exit step is the same for every block and sample of an update.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import AdamW

from filmstill.diffusion.rollout import RolloutPlan, rollout
from filmstill.distill.dmd import Dmd, Draw
from filmstill.distill.ema import Ema
from filmstill.distill.optimizers import adamw, clip_gradients, set_learning_rate, warmup_then_decay
from filmstill.distill.order import batch_indices
from filmstill.distill.statistics import Worth
from filmstill.distill.training import Rhythm, TrainState, train
from filmstill.models.attention import BlockCausal
from filmstill.models.dit import VideoDiT
from filmstill.models.sharding import gathered
from filmstill.models.text import TextEncoder
from filmstill.params.distill import Distill
from filmstill.plan.flops import critic_update_flops, generator_update_flops
from filmstill.plan.passes import Clip
from filmstill.runtime import distributed, randomness
from filmstill.runtime.stopwatch import part


class SelfForcing:
    """The roles of one run: generator, its average, objective (teacher and critic), and where chance comes from."""

    def __init__(
        self,
        params: Distill,
        generator: VideoDiT,
        objective: Dmd,
        plan: RolloutPlan,
        encoder: TextEncoder,
        prompts: list[str],
        latent_shape: tuple[int, int, int, int],
        seed: int,
        parts: list[range],
    ) -> None:
        """latent_shape: (F, C, H, W). parts: this process's samples of a batch, a range a pass."""
        self.params = params
        self.generator = generator
        self.objective = objective
        self.plan = plan
        self.encoder = encoder
        self.prompts = prompts
        self.latent_shape = latent_shape
        self.seed = seed
        self.parts = parts
        self.ema = Ema(generator, params.ema, params.ema_start)
        self.generator_optimizer = self._adamw(generator, params.lr)
        self.critic_optimizer = self._adamw(objective.critic, params.critic_lr)

    def _adamw(self, model: VideoDiT, lr: float) -> AdamW:
        betas = (self.params.beta1, self.params.beta2)
        return adamw(model.named_parameters(), lr, betas, self.params.weight_decay)

    def prepare_text(self) -> None:
        """Encode the prompts that the run will draw, and no other: 46,080 draws among VidProM's 250,000."""
        drawn = {
            number
            for index in range(self.params.updates)
            for update in (*map("critic{}".format, range(self.params.critic_updates)), "generator")
            for number in self._drawn(index, update)
        }
        self.encoder.prepare([self.prompts[number] for number in sorted(drawn)])

    def state(self) -> TrainState:
        return TrainState(
            {"generator": self.generator, "critic": self.objective.critic},
            {"generator": self.generator_optimizer, "critic": self.critic_optimizer},
            {"generator": self.ema},
        )

    def worth(self) -> Worth:
        """Tokens of all updates' clips; operations by the exit steps that are drawn."""
        config, checkpointing = self.generator.config, self.generator.checkpointing
        clip = Clip.of(self.latent_shape, self.encoder.text_len)
        critics = [f"critic{update}" for update in range(self.params.critic_updates)]

        def rolled(index: int, update: str) -> tuple[Clip, BlockCausal, float, bool]:
            return clip, self.plan.attention, self.exit_step(index, update) + 1, checkpointing

        def flops(index: int) -> float:
            critic = sum(critic_update_flops(config, *rolled(index, update)) for update in critics)
            score = self.objective.teacher.config
            return self.params.batch * (critic + generator_update_flops(config, score, *rolled(index, "generator")))

        return Worth(self.params.batch * (len(critics) + 1) * clip.tokens, flops, self.generator.device)

    def step(self, index: int) -> dict[str, float]:
        """`critic_updates` critic updates, then one of the generator."""
        factor = warmup_then_decay(index, self.params.updates, 0, self.params.decay_share)
        set_learning_rate([self.generator_optimizer, self.critic_optimizer], factor)
        for update in range(self.params.critic_updates):
            critic_loss = self._update_critic(index, f"critic{update}")
        loss, norm = self._update_generator(index)
        with part("optimizer"):
            self.ema.update(self.generator, index)
        loss, critic_loss = distributed.sums(loss, critic_loss)
        return {"loss": loss, "critic_loss": critic_loss, "gradient_norm": norm}

    def _update_critic(self, index: int, update: str) -> float:
        losses = []
        for samples in self.parts:
            with torch.no_grad():
                video, text = self._generate(index, update, samples)
            draw = self._draw(index, update, samples)
            with part("critic"):
                losses.append(self._backward(self.objective.critic_loss(video, text, draw), samples))
        self._apply(self.critic_optimizer, self.objective.critic)
        return sum(losses)

    def _update_generator(self, index: int) -> tuple[float, float]:
        losses = []
        for samples in self.parts:
            video, text = self._generate(index, "generator", samples)
            loss = self.objective.generator_loss(video, text, self._draw(index, "generator", samples))
            with part("backward"):
                losses.append(self._backward(loss, samples))
        return sum(losses), self._apply(self.generator_optimizer, self.generator)

    def _apply(self, optimizer: AdamW, model: VideoDiT) -> float:
        """Update by the gradients; returns the norm they had."""
        with part("optimizer"):
            norm = clip_gradients(model, self.params.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
        return norm

    def _backward(self, loss: Tensor, samples: range) -> float:
        """Add the gradients of a micro-batch's mean loss; returns its share of the batch's."""
        share = loss * (len(samples) / self.params.batch)
        share.backward()
        return share.item()

    def _generate(self, index: int, update: str, samples: range) -> tuple[Tensor, Tensor]:
        """A rollout of the generator as it is now: (latents [B, F, C, H, W], text [B, text_len, text_dim])."""
        purpose, device = f"distill/{update}", self.generator.device
        with part("data"):
            chosen = self._drawn(index, update)
            text = self.encoder.encode([self.prompts[chosen[sample]] for sample in samples]).to(device)
            shape = (self.plan.noises, *self.latent_shape)
            noise = randomness.normal(shape, self.seed, f"{purpose}/rollout", index, samples).to(device)
        with part("rollout"), gathered(self.generator):
            text_kv, exit_step = self.generator.read_text(text), self.exit_step(index, update)
            blocks = rollout(self.generator, text_kv, noise, self.plan, exit_step)
            return torch.cat(list(blocks), dim=1), text

    def exit_step(self, index: int, update: str) -> int:
        """At which denoising step a rollout ends, the same for every block and sample."""
        drawn = randomness.integers(len(self.plan.sigmas), (), self.seed, f"distill/{update}/exit", index, [0])
        return int(drawn)

    def _drawn(self, index: int, update: str) -> list[int]:
        """Which prompts a batch has."""
        return batch_indices(len(self.prompts), self.seed, f"distill/{update}/prompts", index, self.params.batch)

    def _draw(self, index: int, update: str, samples: range) -> Draw:
        device, purpose = self.generator.device, f"distill/{update}"
        with part("data"):
            return Draw(
                randomness.uniform(self.seed, f"{purpose}/time", index, samples).to(device),
                randomness.normal(self.latent_shape, self.seed, f"{purpose}/noise", index, samples).to(device),
            )


def train_self_forcing(folder: Path, run: SelfForcing, draw_sheet: Callable[[Path], None]) -> list[float]:
    """Train in `folder`, returns every loss; afterwards `run.ema` is the student."""

    def sheet_of_average(path: Path) -> None:
        with run.ema.swapped_into(run.generator):
            draw_sheet(path)

    params = run.params
    rhythm = Rhythm(params.updates, params.checkpoint_every, params.sheet_every)
    return train("distill", folder, rhythm, run.state(), run.step, run.worth(), sheet_of_average)
