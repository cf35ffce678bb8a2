"""The section `world` of params.yaml: what clips show."""

from dataclasses import dataclass

from filmstill.errors import require
from filmstill.params.keys import check_intervals, key
from filmstill.params.model import PATCH

EMBEDDED, OPEN = "symbols", "open"
STRIDE = {EMBEDDED: 4, OPEN: 8}  # pixels per latent, each way
FPS = {EMBEDDED: 8, OPEN: 16}  # pixel frames per second
MAX_WORDS = 16  # of a prompt of the symbols world: the embedded text encoder drops what comes after


@dataclass
class World:
    """What clips show. symbols: the embedded world, which draws and judges clips and trains its own teacher, unless
    teacher.released names one that was trained in the same world. open: anything that a prompt describes; its models
    come from a release (teacher.released)."""

    name: str = key(EMBEDDED, "which world: symbols or open")
    frames: int = key(
        12, "latent frames per clip: as many pixel frames (symbols), or 1 + 4 * (frames - 1) (open)", "[3, 100000]"
    )
    height: int = key(32, "height of a frame in pixels", "[1, 16384]")
    width: int = key(32, "width of a frame in pixels", "[1, 16384]")
    amplitude: float = key(
        8.0, "pixels that a symbol moves each way (symbols world only, as the next two keys)", "[4, 8]"
    )
    period: int = key(
        12,
        "frames per full swing or turn; a clip of a whole number of periods loops, see ode_init.clips",
        "[4, 10000]",
    )
    any_phase: bool = key(False, "true: clips begin at any frame of the period; false: at its first")

    def __post_init__(self) -> None:
        check_intervals(self)
        require(self.name in STRIDE, "name", self.name, f"one of {', '.join(STRIDE)}")
        for name in ("height", "width"):
            size, multiple = getattr(self, name), STRIDE[self.name] * PATCH
            if self.name == EMBEDDED:
                require(size == 32, name, size, "32: symbols are drawn so")
            else:
                require(size % multiple == 0, name, size, f"a positive multiple of {multiple} pixels")
        if self.name == EMBEDDED:
            allowed = f"at most 2 * frames ({2 * self.frames}): in less than half a period a motion cannot be judged"
            require(self.period <= 2 * self.frames, "period", self.period, allowed)

    @property
    def loops(self) -> bool:
        """Whether a clip, repeated, is a longer clip of the same world."""
        return self.name == EMBEDDED and not self.any_phase and self.frames % self.period == 0

    @property
    def fps(self) -> int:
        """Pixel frames per second."""
        return FPS[self.name]

    def latent_shape(self, channels: int) -> tuple[int, int, int, int]:
        """(F, C, H, W) of a clip's latents."""
        stride = STRIDE[self.name]
        return self.frames, channels, self.height // stride, self.width // stride
