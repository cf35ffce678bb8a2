"""Sections that several stages read: the world, the network, text, the schedule, the student's rollout, the machine."""

from dataclasses import dataclass

from filmstill.params.load import require

DIGITS, OPEN = "digits", "open"
STRIDE = {DIGITS: 4, OPEN: 8}  # pixels a latent, each way
FPS = {DIGITS: 8, OPEN: 16}  # pixel frames a second
PATCH = 2  # latents a token, each way


@dataclass
class World:
    """What clips show. digits: the embedded world, which draws clips and judges them, and trains its own teacher.
    open: whatever a prompt asks for; nobody can draw it, so the models come from a release (teacher.released)."""

    name: str = DIGITS
    frames: int = 12  # latent frames a clip; one is one pixel frame among digits; k are 1 + 4*(k - 1) in the open world
    height: int = 32  # pixels
    width: int = 32  # pixels
    amplitude: float = 6.0  # pixels; this and what follows is for digits alone
    period: int = 24  # frames a full swing or turn
    random_phase: bool = False  # start anywhere in the period: 2-3 times harder to learn

    def __post_init__(self) -> None:
        require(self.name in STRIDE, "name", self.name, f"one of {', '.join(STRIDE)}")
        require(self.frames >= 3, "frames", self.frames, "at least 3 latent frames: smoothness of motion needs as many")
        for name in ("height", "width"):
            size, multiple = getattr(self, name), STRIDE[self.name] * PATCH
            allowed = "32: digits are drawn so" if self.name == DIGITS else f"a positive multiple of {multiple} pixels"
            fits = size == 32 if self.name == DIGITS else size > 0 and size % multiple == 0
            require(fits, name, size, allowed)
        require(0 < self.amplitude <= 8, "amplitude", self.amplitude, "(0, 8] pixels: the digit stays in the picture")
        require(self.period >= 4, "period", self.period, "at least 4 frames")

    @property
    def fps(self) -> int:
        return FPS[self.name]

    def latent_shape(self, channels: int) -> tuple[int, int, int, int]:
        """(F, C, H, W) of a clip's latents."""
        stride = STRIDE[self.name]
        return self.frames, channels, self.height // stride, self.width // stride


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
    in_channels: int = 16  # latent channels: the codec's

    def __post_init__(self) -> None:
        for name in ("dim", "ffn_dim", "num_heads", "num_layers", "freq_dim", "text_dim", "text_len", "in_channels"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
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


PLACEMENTS = ("cpu", "gpu", "offload")


@dataclass
class Text:
    """The text encoder. The embedded one has no weights and needs no place."""

    placement: str = "cpu"  # of a released encoder: cpu, gpu (it stays), or offload (only to encode)
    negative: str = ""  # prompt of guidance's other branch

    def __post_init__(self) -> None:
        require(self.placement in PLACEMENTS, "placement", self.placement, f"one of {', '.join(PLACEMENTS)}")


DEVICES, PRECISIONS = ("cpu", "cuda"), ("float32", "bfloat16")


@dataclass
class Compute:
    """What the numbers are computed on. Threads and micro-batches are parameters because they change the last bits."""

    threads: int = 2
    device: str = "cpu"
    precision: str = "float32"  # of matrix products and frozen weights; weights in training stay float32
    checkpointing: bool = False  # compute a layer's activations again in the backward pass instead of keeping them
    micro_batch: int | None = None  # samples a pass of ode_init and distill, gradients added up; null: the whole batch

    def __post_init__(self) -> None:
        require(self.threads > 0, "threads", self.threads, "a positive integer")
        require(self.device in DEVICES, "device", self.device, f"one of {', '.join(DEVICES)}")
        require(self.precision in PRECISIONS, "precision", self.precision, f"one of {', '.join(PRECISIONS)}")
        size = self.micro_batch
        require(size is None or size > 0, "micro_batch", size, "null or a positive integer")
