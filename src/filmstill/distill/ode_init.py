"""ODE initialisation: regress the teacher's x0 from its own trajectory, causally.

Each block of frames stands at a node of its own and sees the blocks before it at theirs (CausVid,
arXiv:2412.07772, section 4.2). The clean end is a node too, since finished context is what a rollout sees; it
has no loss of its own, and the last block, which is nobody's context, is never clean.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from filmstill.diffusion.losses import x0_loss
from filmstill.diffusion.schedule import TIMESTEPS, FlowSchedule, velocity_to_x0
from filmstill.distill.optimizers import muon_and_adamw, set_learning_rate, warmup_then_decay
from filmstill.distill.order import batch_indices
from filmstill.distill.pairs import Pairs
from filmstill.distill.training import Rhythm, TrainState, train
from filmstill.models.attention import BlockCausal
from filmstill.models.dit import VideoDiT
from filmstill.models.text import HashedWords
from filmstill.params.ode_init import OdeInit
from filmstill.runtime import randomness

MAX_GRAD_NORM = 1.0


def draw_nodes(attention: BlockCausal, frames: int, nodes: int, seed: int, step: int, samples: range) -> Tensor:
    """One random node a block, the same for its frames: [B, F] in [0, nodes]; `nodes` itself is the clean end."""
    blocks = attention.blocks(frames)
    drawn = randomness.integers(nodes + 1, (len(blocks),), seed, "ode_init/nodes", step, samples)
    drawn[:, -1] = randomness.integers(nodes, (), seed, "ode_init/last_node", step, samples)
    return drawn.repeat_interleave(torch.tensor([end - start for start, end in blocks]), dim=1)


def train_ode_init(
    folder: Path,
    params: OdeInit,
    pairs: Pairs,
    attention: BlockCausal,
    student_steps: int,
    schedule: FlowSchedule,
    model: VideoDiT,
    encoder: HashedWords,
    seed: int,
    draw_sheet: Callable[[Path], None],
) -> list[float]:
    """Train `model`, which comes with the teacher's weights, in `folder`; returns every loss."""
    kept = torch.tensor(pairs.node_indices(schedule, student_steps))
    sigmas = torch.cat([schedule.nodes(student_steps), torch.zeros(1, dtype=torch.float64)])
    texts = encoder.encode(pairs.prompts)
    muon, adamw = muon_and_adamw(model, params.muon_lr, params.adamw_lr, weight_decay=0.0)
    state = TrainState({"student": model}, {"muon": muon, "adamw": adamw})
    frames = pairs.latents.shape[2]

    def step(index: int) -> dict[str, float]:
        set_learning_rate([muon, adamw], warmup_then_decay(index, params.steps, params.warmup, params.decay_share))
        chosen = torch.tensor(batch_indices(len(pairs.prompts), seed, "ode_init/order", index, params.batch))
        node = draw_nodes(attention, frames, student_steps, seed, index, range(params.batch))
        trajectory = pairs.latents[chosen][:, kept]  # [B, S, F, C, H, W]
        rows, columns = torch.arange(params.batch)[:, None], torch.arange(frames)
        xt, x0, sigma = trajectory[rows, node, columns], trajectory[:, -1], sigmas[node]
        velocity = model(xt, sigma * TIMESTEPS, model.read_text(texts[chosen]), plan=attention)
        noisy = node < student_steps
        loss = x0_loss(x0[noisy], velocity_to_x0(velocity, xt, sigma)[noisy])
        loss.backward()
        norm = clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        for optimizer in (muon, adamw):
            optimizer.step()
            optimizer.zero_grad()
        return {"loss": loss.item(), "gradient_norm": norm.item()}

    rhythm = Rhythm(params.steps, params.checkpoint_every, params.sheet_every)
    return train("ode_init", folder, rhythm, state, step, draw_sheet)
