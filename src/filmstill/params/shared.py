"""Sections that several stages read: the world, the network, the schedule, the student's rollout, the machine."""

from dataclasses import dataclass

from filmstill.params.load import require
from filmstill.worlds.grammar import MAX_WORDS


@dataclass
class World:
    """The digits world. One latent frame is one pixel frame here."""

    frames: int = 12  # latent frames a clip
    amplitude: float = 6.0  # pixels
    period: int = 24  # frames a full swing or turn
    random_phase: bool = False  # start anywhere in the period: 2-3 times harder to learn

    def __post_init__(self) -> None:
        require(self.frames >= 3, "frames", self.frames, "at least 3 latent frames: smoothness of motion needs as many")
        require(0 < self.amplitude <= 8, "amplitude", self.amplitude, "(0, 8] pixels: the digit stays in the picture")
        require(self.period >= 4, "period", self.period, "at least 4 frames")


@dataclass
class Model:
    """Wan2.1's transformer at any size (names as in the released config.json)."""

    dim: int = 128
    ffn_dim: int = 512
    num_heads: int = 4
    num_layers: int = 4
    freq_dim: int = 64  # channels of the sinusoidal timestep embedding
    text_dim: int = 64
    text_len: int = 16  # tokens a prompt is padded or cut to

    def __post_init__(self) -> None:
        for name in ("dim", "ffn_dim", "num_heads", "num_layers", "freq_dim", "text_dim"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
        allowed = f"at least {MAX_WORDS}, the words of the longest prompt of the digits world"
        require(self.text_len >= MAX_WORDS, "text_len", self.text_len, allowed)
        require(self.freq_dim % 2 == 0, "freq_dim", self.freq_dim, "an even number: half cosines, half sines")
        require(self.dim % self.num_heads == 0, "dim", self.dim, f"a multiple of num_heads ({self.num_heads})")
        head = self.dim // self.num_heads
        require(head % 2 == 0, "dim", self.dim, f"an even head size (dim / num_heads is {head})")


@dataclass
class Schedule:
    """The one flow-matching schedule of the pipeline: sigma = shift*u / (1 + (shift - 1)*u)."""

    shift: float = 3.0

    def __post_init__(self) -> None:
        require(self.shift >= 1, "shift", self.shift, "a number >= 1")


@dataclass
class Student:
    """How the causal student rolls out, in training and in serving."""

    steps: int = 4  # denoising steps a block: nodes u = 1, 1 - 1/steps, … of the schedule
    block_frames: int = 3  # latent frames denoised together
    window_frames: int | None = None  # latent frames a block may attend to, itself and the sink included; null: all
    sink_frames: int = 0  # first frames that never leave the window
    context_noise: float = 0.0  # sigma at which a finished block enters the cache

    def __post_init__(self) -> None:
        require(self.steps > 0, "steps", self.steps, "a positive integer")
        require(self.block_frames > 0, "block_frames", self.block_frames, "a positive integer")
        require(self.sink_frames >= 0, "sink_frames", self.sink_frames, "0 or more frames")
        require(0 <= self.context_noise < 1, "context_noise", self.context_noise, "a sigma in [0, 1)")
        if self.window_frames is not None:
            least = self.sink_frames + self.block_frames
            allowed = f"null, or at least sink_frames + block_frames = {least}"
            require(self.window_frames >= least, "window_frames", self.window_frames, allowed)

    def check_frames(self, frames: int, key: str) -> None:
        """Refuse a clip length that is not whole blocks."""
        allowed = f"a multiple of student.block_frames ({self.block_frames})"
        require(frames % self.block_frames == 0, key, frames, allowed)


@dataclass
class Compute:
    """What the numbers are computed on. Threads are a parameter because they change the last bits."""

    threads: int = 2

    def __post_init__(self) -> None:
        require(self.threads > 0, "threads", self.threads, "a positive integer")
