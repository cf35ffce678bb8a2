"""The section `world` of params.yaml: what clips show."""

from dataclasses import dataclass

from filmstill.errors import require
from filmstill.params.model import PATCH

DIGITS, OPEN = "digits", "open"
STRIDE = {DIGITS: 4, OPEN: 8}  # pixels per latent, each way
FPS = {DIGITS: 8, OPEN: 16}  # pixel frames per second
MAX_WORDS = 16  # of a prompt of the digits world: the embedded text encoder drops what comes after


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
