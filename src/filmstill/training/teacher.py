"""Train the embedded teacher: a bidirectional flow-matching model (arXiv:2210.02747) of a world's clips."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from filmstill.diffusion.sample import guided, sample
from filmstill.diffusion.schedule import TIMESTEPS, FlowSchedule, add_noise
from filmstill.models.codec import DctCodec
from filmstill.models.dit import DiTConfig, VideoDiT
from filmstill.models.load import DTYPES, save_hashed_words
from filmstill.models.text import HashedWords
from filmstill.models.weights import config_of, save_model
from filmstill.objectives.denoising import flow_loss
from filmstill.params.compute import Compute
from filmstill.params.load import Values
from filmstill.params.model import Model
from filmstill.params.schedule import Schedule
from filmstill.params.teacher import Teacher
from filmstill.params.world import World
from filmstill.runtime import randomness
from filmstill.runtime.files import write_json
from filmstill.runtime.image import save_sheet
from filmstill.runtime.stopwatch import part
from filmstill.training.ema import Ema
from filmstill.training.loop import Intervals, TrainState, train
from filmstill.training.optimizers import clip_gradients, muon_and_adamw, set_learning_rate, warmup_then_decay
from filmstill.training.telemetry import StepCost
from filmstill.worlds import symbols

MAX_GRAD_NORM = 1.0
FIT_CLIPS = 256  # clips that the codec's normalisation is measured on
MOST_GIVEN = 0.6  # of a clip's frames on average, at most
SHEET_CLIPS, SHEET_GUIDANCE, SHEET_STEPS = 6, 3.0, 16


@dataclass(frozen=True)
class EmbeddedTeacher:
    """A teacher of the embedded world, with all that its clips are made with."""

    network: VideoDiT
    codec: DctCodec
    encoder: HashedWords
    world: World
    schedule: FlowSchedule
    seed: int

    @torch.no_grad()
    def sample(self, prompts: list[str], purpose: str, guidance_scale: float, steps: int) -> Tensor:
        """One clip per prompt, [B, F, 3, 32, 32] in [0, 1]. purpose: address of their noise."""
        velocity = guided(self.network, self.encoder.encode(prompts), self.encoder.encode([""]), guidance_scale)
        shape = self.world.latent_shape(self.network.config.in_channels)
        noise = randomness.normal(shape, self.seed, purpose, 0, range(len(prompts)))
        return self.codec.decode(sample(velocity, noise, self.schedule, steps, keep=[])[:, -1])

    def save_sheet(self, path: Path) -> None:
        """Write clips of a few drawn prompts to `path`."""
        prompts = symbols.draw(self.world, self.seed, "teacher/sheet", 0, range(SHEET_CLIPS)).prompts
        save_sheet(self.sample(prompts, "teacher/sheet/noise", SHEET_GUIDANCE, SHEET_STEPS), path)

    def write(self, out: Path, facts: dict[str, object]) -> None:
        """Write the network, with `facts` in its header, an empty real score, the codec and the text encoder."""
        self.codec.save(out / "codec.safetensors")
        save_hashed_words(out / "text", self.encoder)
        write_json(out / "real_score" / "experts.json", {"files": []})
        facts = {"shift": self.schedule.shift, **facts}
        save_model(out / "teacher.safetensors", self.network.state_dict(), self.network.config, facts)


def make_teacher(
    folder: Path, values: Values, compute: Compute, weights: Mapping[str, Tensor] | None = None
) -> EmbeddedTeacher:
    """Fit the world's codec and train the network in `folder`, by the sections of params.yaml.

    weights: those that training begins with; None: new ones.
    """
    section, seed = values.section, values.seed
    world, sizes = section(World, "world"), section(Model, "model")
    network = new_model(config_of(sizes), seed)
    if weights is not None:
        network.load_state_dict(dict(weights))
    network.precision, network.activation_checkpointing = DTYPES[compute.precision], compute.activation_checkpointing
    encoder = HashedWords(sizes.text_len, sizes.text_dim)
    schedule = FlowSchedule(section(Schedule, "schedule").shift)
    teacher = EmbeddedTeacher(network, fit_codec(world, seed), encoder, world, schedule, seed)
    train_teacher(folder, section(Teacher, "teacher"), teacher)
    return teacher


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


def given_frames(share: float, frames: int, seed: int, step: int, samples: range) -> Tensor:
    """Which frames of each clip are given, bool [B, frames]: none, or in a share of the clips a drawn part of them.

    Frames without noise teach how a motion goes on (history-guided diffusion, arXiv:2502.06764); at one level of noise
    for all, every frame is as well guessed from itself as from its neighbours, until late in training.
    """
    of_clip, part, of_frames = randomness.uniform(seed, "teacher/given", step, samples, (2 + frames,)).split(
        [1, 1, frames], dim=1
    )
    given = (of_clip < share) & (of_frames < MOST_GIVEN * part)
    return given & (of_frames < of_frames.amax(dim=1, keepdim=True))  # never all of them


def _rate(params: Teacher, step: int) -> float:
    """Factor of the learning rates at a step: warm restarts (SGDR, arXiv:1608.03983), each at half the rates."""
    restart, within = divmod(step, params.steps)
    return 0.5**restart * warmup_then_decay(within, params.steps, params.warmup, params.lr_decay_fraction)


def train_teacher(folder: Path, params: Teacher, teacher: EmbeddedTeacher) -> None:
    """Train the teacher's network in `folder`, resuming from a checkpoint there; it ends as its weights' average.

    A share `drop_prompt` of samples gets the empty prompt, for classifier-free guidance; a share `open_prompts` of the
    prompts leaves the colour open; of a share `given` of the clips some frames are given.
    """
    model, codec, encoder, world = teacher.network, teacher.codec, teacher.encoder, teacher.world
    schedule, seed = teacher.schedule, teacher.seed
    ema = Ema(model, params.ema)
    optimizers = muon_and_adamw(model, params.muon_lr, params.adamw_lr, params.weight_decay)
    state = TrainState({"teacher": model}, optimizers, {"teacher": ema})
    samples = range(params.batch)

    def step(index: int) -> dict[str, float]:
        factor = _rate(params, index)
        set_learning_rate(optimizers.values(), factor)
        with part("data"):
            clips = symbols.draw(world, seed, "teacher/clips", index, samples, params.open_prompts)
            dropped = randomness.uniform(seed, "teacher/drop", index, samples) < params.drop_prompt
            text = encoder.encode(["" if drop else p for p, drop in zip(clips.prompts, dropped, strict=True)])
            x0 = codec.encode(clips.video)
            noise = randomness.normal(tuple(x0.shape[1:]), seed, "teacher/noise", index, samples)
            sigma = schedule.warp(stratified(randomness.uniform(seed, "teacher/time", index, samples), seed, index))
            given = given_frames(params.given, world.frames, seed, index, samples)
            if params.given:
                sigma = sigma[:, None].masked_fill(given, 0.0)
        with part("forward"):
            velocity = model(add_noise(x0, noise, sigma), sigma * TIMESTEPS, model.read_text(text))
            loss = flow_loss(x0[~given], noise[~given], velocity[~given])
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
            teacher.save_sheet(path)

    intervals = Intervals(params.total_steps, params.checkpoint_every, params.sheet_every)
    shape = world.latent_shape(model.config.in_channels)
    cost = StepCost.of_regression(model, shape, encoder.text_len, params.batch)
    train("teacher", folder, intervals, state, step, cost, sheet_of_average)
    model.load_state_dict(ema.tensors())
