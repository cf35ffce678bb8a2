"""What the arms of a comparison are called in files and metrics."""

from filmstill.params.shared import DIGITS, World

ARMS = ("real", "teacher", "undistilled", "init", "student")  # the same prompts, the same seeds, one clip long
LONG_ARM = "student_long"  # the student's long stream, for drift


def short_arms(world: World) -> tuple[str, ...]:
    """The arms whose clips are compared: only the world of digits can show what is asked of it."""
    return ARMS if world.name == DIGITS else ARMS[1:]


def every_arm(world: World) -> tuple[str, ...]:
    return (*short_arms(world), LONG_ARM)
