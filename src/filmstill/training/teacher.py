"""Train the embedded teacher: a bidirectional flow-matching model (arXiv:2210.02747) of a world's clips."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from filmstill.diffusion.schedule import TIMESTEPS, FlowSchedule, add_noise
from filmstill.models.codec import DctCodec
from filmstill.models.dit import DiTConfig, VideoDiT
from filmstill.models.text import HashedWords
from filmstill.objectives.denoising import flow_loss
from filmstill.params.teacher import Teacher
from filmstill.params.world import World
from filmstill.runtime import randomness
from filmstill.runtime.stopwatch import part
from filmstill.training.ema import Ema
from filmstill.training.loop import Intervals, TrainState, train
from filmstill.training.optimizers import clip_gradients, muon_and_adamw, set_learning_rate, warmup_then_decay
from filmstill.training.telemetry import StepCost
from filmstill.worlds import symbols

MAX_GRAD_NORM = 1.0
FIT_CLIPS = 256  # clips that the codec's normalisation is measured on


def fit_codec(world: World, seed: int) -> DctCodec:
    """A codec normalised to the world's clips."""
    return DctCodec.fit(symbols.draw(world, seed, "codec", 0, range(FIT_CLIPS)).video)


def new_model(config: DiTConfig, seed: int) -> VideoDiT:
    """A network with Xavier-uniform matrices, addressed by `seed`; head and biases are zero.

    Wan2.1 initialises text and time embeddings with standard deviation 0.02, which suits 4,096 text channels; with the
    64 channels of hashed words the prompt would have almost no effect.
    """
    model = VideoDiT(config)
    dice = randomness.generator(seed, "teacher/weights")
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or name.startswith("head.head"):
            nn.init.zeros_(parameter)
        elif name.endswith("modulation"):
            nn.init.normal_(parameter, std=config.dim**-0.5, generator=dice)
        elif parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter.data.flatten(1), generator=dice)
    return model


def stratified(u: Tensor, seed: int, step: int) -> Tensor:
    """Times u [B] in [0, 1) moved so that each of B equal parts of the interval has one: evens out a batch's noise."""
    order = torch.randperm(len(u), generator=randomness.generator(seed, "teacher/strata", step))
    return (u + order) / len(u)


def train_teacher(
    folder: Path,
    params: Teacher,
    world: World,
    model: VideoDiT,
    codec: DctCodec,
    encoder: HashedWords,
    schedule: FlowSchedule,
    seed: int,
    draw_sheet: Callable[[Path], None],
) -> Ema:
    """Train `model` in `folder`, resuming from a checkpoint there; return the average of its weights, the teacher.

    A share `drop_prompt` of samples gets the empty prompt, for classifier-free guidance; a share `open_prompts` of the
    prompts leaves the colour open.
    """
    ema = Ema(model, params.ema)
    optimizers = muon_and_adamw(model, params.muon_lr, params.adamw_lr, params.weight_decay)
    state = TrainState({"teacher": model}, optimizers, {"teacher": ema})
    samples = range(params.batch)

    def step(index: int) -> dict[str, float]:
        factor = warmup_then_decay(index, params.steps, params.warmup, params.lr_decay_fraction)
        set_learning_rate(optimizers.values(), factor)
        with part("data"):
            clips = symbols.draw(world, seed, "teacher/clips", index, samples, params.open_prompts)
            dropped = randomness.uniform(seed, "teacher/drop", index, samples) < params.drop_prompt
            text = encoder.encode(["" if drop else p for p, drop in zip(clips.prompts, dropped, strict=True)])
            x0 = codec.encode(clips.video)
            noise = randomness.normal(tuple(x0.shape[1:]), seed, "teacher/noise", index, samples)
            sigma = schedule.warp(stratified(randomness.uniform(seed, "teacher/time", index, samples), seed, index))
        with part("forward"):
            velocity = model(add_noise(x0, noise, sigma), sigma * TIMESTEPS, model.read_text(text))
            loss = flow_loss(x0, noise, velocity)
        with part("backward"):
            loss.backward()
        with part("optimizer"):
            norm = clip_gradients(model, MAX_GRAD_NORM)
            for optimizer in optimizers.values():
                optimizer.step()
                optimizer.zero_grad()
            ema.update(model, index)
        return {"loss": loss.item(), "gradient_norm": norm}

    def sheet_of_average(path: Path) -> None:
        with ema.swapped_into(model):
            draw_sheet(path)

    intervals = Intervals(params.steps, params.checkpoint_every, params.sheet_every)
    shape = world.latent_shape(model.config.in_channels)
    cost = StepCost.of_regression(model, shape, encoder.text_len, params.batch)
    train("teacher", folder, intervals, state, step, cost, sheet_of_average)
    return ema
