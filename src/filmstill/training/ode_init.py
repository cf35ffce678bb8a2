"""ODE initialisation: causal regression of the teacher's x0 from points of its own trajectory.

CausVid (arXiv:2412.07772), student initialization: every block of frames is at a random node of the trajectory, drawn
per block, and attends to the earlier blocks at their nodes. The clean end counts as a node, since the context of a
rollout is clean; clean blocks have no loss, and the last block, which is context to none, is never clean. A further
share of blocks may be set to the clean end (`clean_share`), for contexts that are more like a rollout's.

A trajectory may be chained to itself along frames (`clips`), for positions and contexts beyond one clip. That rests on
the world's loop, a clip's end continuing into its begin, and on an attention window that hides a block's own copy. A
change of prompt in mid-sequence (`prompt_switch`) does not: the frames after it are those of another pair at the same
places, under that pair's prompt, which has begun unseen.
"""

from collections.abc import Callable
from math import lcm
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

from filmstill.diffusion.schedule import TIMESTEPS, FlowSchedule, velocity_to_x0, x0_to_velocity
from filmstill.models.attention import BlockCausal
from filmstill.models.dit import VideoDiT
from filmstill.models.prompts_by_frame import TextByFrame
from filmstill.models.text import TextEncoder
from filmstill.objectives.denoising import velocity_loss, x0_loss
from filmstill.params.ode_init import OdeInit
from filmstill.runtime import distributed, randomness
from filmstill.runtime.randomness import batch_indices
from filmstill.runtime.stopwatch import part
from filmstill.training.loop import Intervals, TrainState, train
from filmstill.training.optimizers import adamw, clip_gradients, muon_and_adamw, set_learning_rate, warmup_then_decay
from filmstill.training.pairs import Pairs
from filmstill.training.telemetry import StepCost


def draw_nodes(
    attention: BlockCausal,
    frames: int,
    steps: tuple[int, int],
    seed: int,
    step: int,
    samples: range,
    clean_share: float = 0.0,
    given: float = 0.0,
) -> Tensor:
    """One random node per block, shared by its frames: [B, F] in [0, clean], where `clean` is the clean end.

    steps: of the first block and of the others. Nodes are counted on the coarsest grid that has those of both, of
    `clean` = their least common multiple steps. clean_share: probability that a block but the last is set to the clean
    end whatever it drew. given: probability that a sample's first frame is, as a picture that a stream begins with.
    """
    blocks, (first, others), clean = list(attention.blocks(frames)), steps, lcm(*steps)
    drawn = randomness.integers(others + 1, (len(blocks),), seed, "ode_init/nodes", step, samples) * (clean // others)
    if first != others:
        nodes = randomness.integers(first + 1, (), seed, "ode_init/first_node", step, samples)
        drawn[:, 0] = nodes * (clean // first)
    if clean_share:
        drawn[randomness.uniform(seed, "ode_init/clean", step, samples, (len(blocks),)) < clean_share] = clean
    of_last = others if len(blocks) > 1 else first
    drawn[:, -1] = randomness.integers(of_last, (), seed, "ode_init/last_node", step, samples) * (clean // of_last)
    by_frame = drawn.repeat_interleave(torch.tensor([end - start for start, end in blocks]), dim=1)
    if given:
        by_frame[randomness.uniform(seed, "ode_init/given", step, samples) < given, 0] = clean
    return by_frame


class OdeRegression:
    """One run: the student in training, the trajectories that it is regressed on, and its optimizers."""

    def __init__(
        self,
        params: OdeInit,
        pairs: Pairs,
        attention: BlockCausal,
        steps: tuple[int, int],
        schedule: FlowSchedule,
        model: VideoDiT,
        encoder: TextEncoder,
        seed: int,
        micro_batches: list[range],
    ) -> None:
        """model: starts from the teacher's weights. steps: of the student's first block and of the others.

        micro_batches: this rank's samples of a batch, one range per forward pass.
        Raises FilmstillError if the pairs lack one of the student's nodes.
        """
        self.params, self.pairs, self.attention, self.steps, self.clean = params, pairs, attention, steps, lcm(*steps)
        self.model, self.encoder, self.seed, self.micro_batches = model, encoder, seed, micro_batches
        self.stored_nodes = pairs.node_indices(schedule, self.clean)
        self.sigmas = torch.cat([schedule.nodes(self.clean), torch.zeros(1, dtype=torch.float64)])
        self.optimizers = _optimizers(model, params)
        # Frame of the trajectory at every frame of the sequence, to chain it where a batch is read.
        self.frames = torch.arange(params.clips * pairs.shape[0]) % pairs.shape[0]

    def step(self, index: int) -> dict[str, float]:
        """Regress one batch and update; returns its loss and the norm of its gradients."""
        params, optimizers = self.params, self.optimizers.values()
        factor = warmup_then_decay(index, params.steps, params.warmup, params.lr_decay_fraction)
        set_learning_rate(optimizers, factor)
        chosen = batch_indices(len(self.pairs.prompts), self.seed, "ode_init/order", index, params.batch)
        nodes = self._nodes(index)
        noisy = (nodes < self.clean).sum().to(self.model.device)
        change = self._change(index, chosen)
        losses = [self._regress(samples, chosen, nodes, noisy, change) for samples in self.micro_batches]
        with part("optimizer"):
            norm = clip_gradients(self.model, params.max_grad_norm)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        (loss,) = distributed.all_reduce_sum(sum(share.item() for share in losses))
        return {"loss": loss, "gradient_norm": norm}

    def _nodes(self, index: int) -> Tensor:
        """Nodes of the batch of step `index`, [batch, clips * F]."""
        params, samples = self.params, range(self.params.batch)
        shares = params.clean_share, params.given
        return draw_nodes(self.attention, len(self.frames), self.steps, self.seed, index, samples, *shares)

    def _change(self, index: int, chosen: list[int]) -> tuple[int, list[int]] | None:
        """(first frame, pairs from there on) of step `index`, if prompts may change; some pairs stay the same."""
        params, seed = self.params, self.seed
        starts = [start for start, _ in self.attention.blocks(len(self.frames)) if start]
        if not params.prompt_switch or not starts:
            return None
        start = starts[int(randomness.integers(len(starts), (), seed, "ode_init/switch_block", index, [0]))]
        others = batch_indices(len(self.pairs.prompts), seed, "ode_init/switch_order", index, params.batch)
        changes = randomness.uniform(seed, "ode_init/switch", index, range(params.batch)) < params.prompt_switch
        return start, [b if change else a for a, b, change in zip(chosen, others, changes.tolist(), strict=True)]

    def _regress(
        self,
        samples: range,
        chosen: list[int],
        nodes: Tensor,
        noisy_in_batch: Tensor,
        change: tuple[int, list[int]] | None,
    ) -> Tensor:
        """Accumulate a micro-batch's gradients; returns its share of the batch's loss.

        chosen: the batch's pairs. nodes: their nodes, [batch, clips * F]. A share is weighted by its number of noisy
        frames, `noisy_in_batch` in all, which differs between samples. change: as `_change` returns it.
        """
        device = self.model.device
        with part("data"):
            node = nodes[samples.start : samples.stop]
            indices = chosen[samples.start : samples.stop]
            xt, x0 = self._frames(indices, node)
            texts = [self._text(indices)]
            if change is not None:
                start, after = change[0], change[1][samples.start : samples.stop]
                texts.append(self._text(after))
                xt, x0 = (
                    torch.cat([a[:, :start], b[:, start:]], 1)
                    for a, b in zip((xt, x0), self._frames(after, node), strict=True)
                )
            sigma, noisy = self.sigmas[node], (node < self.clean).to(device)
        with part("forward"):
            starts = (0,) if change is None else (0, change[0])
            prompts = TextByFrame(starts, tuple(self.model.read_text(text) for text in texts))
            velocity = self.model(xt, sigma * TIMESTEPS, prompts, attention=self.attention)
            error = self._error(x0[noisy], xt[noisy], velocity[noisy], sigma.to(device)[noisy])
            loss = error * (noisy.sum() / noisy_in_batch)
        with part("backward"):
            loss.backward()
        return loss.detach()

    def _frames(self, indices: list[int], node: Tensor) -> tuple[Tensor, Tensor]:
        """(x_t at every frame's node, x0) of these pairs, [b, clips * F, C, H, W] both. node: [b, clips * F]."""
        trajectory = self.pairs.trajectories(indices, self.stored_nodes).float()  # [b, S, F, C, H, W]
        rows, device = torch.arange(len(indices))[:, None], self.model.device
        return trajectory[rows, node, self.frames].to(device), trajectory[:, -1, self.frames].to(device)

    def _text(self, indices: list[int]) -> Tensor:
        """Token vectors of these pairs' prompts."""
        return self.encoder.encode([self.pairs.prompts[i] for i in indices]).to(self.model.device)

    def _error(self, x0: Tensor, xt: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
        """Mean squared error of the velocity, or of the x0 that it gives, of frames [N, C, H, W] at sigma [N]."""
        if self.params.loss == "x0":
            return x0_loss(x0, velocity_to_x0(velocity, xt, sigma))
        return velocity_loss(x0_to_velocity(x0, xt, sigma), velocity)


def train_ode_init(folder: Path, run: OdeRegression, draw_sheet: Callable[[Path], None]) -> list[float]:
    """Train `run.model` in `folder`; returns every step's loss. Raises as `loop.train`."""
    params, model, pairs = run.params, run.model, run.pairs
    intervals = Intervals(params.steps, params.checkpoint_every, params.sheet_every)
    shape = (len(run.frames), *pairs.shape[1:])
    cost = StepCost.of_regression(model, shape, run.encoder.text_len, params.batch, run.attention)
    return train(
        "ode_init", folder, intervals, TrainState({"student": model}, run.optimizers), run.step, cost, draw_sheet
    )


def _optimizers(model: VideoDiT, params: OdeInit) -> dict[str, Optimizer]:
    """Muon and AdamW, or AdamW alone if `muon_lr` is null."""
    if params.muon_lr is not None:
        return muon_and_adamw(model, params.muon_lr, params.adamw_lr, params.weight_decay)
    betas = (params.beta1, params.beta2)
    return {"adamw": adamw(model.named_parameters(), params.adamw_lr, betas, params.weight_decay)}
