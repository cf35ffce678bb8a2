"""The arguments of `generate`, and how its words are read."""

import argparse
import re
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filmstill.artifacts import CODEC, STUDENT, TEXT
from filmstill.errors import FilmstillError, require
from filmstill.params.student import PROMPT_CHANGES
from filmstill.runtime.given_path import given_path
from filmstill.serve.options import ENDLESS, FITS, MOST_FRAMES, PIPE

if TYPE_CHECKING:
    from filmstill.serve.prompt_schedule import PromptSchedule

Commands = argparse._SubParsersAction  # argparse has no public name for it

GENERATE = """Stream videos of prompts with a distilled student.

A stream may begin with a picture (--image) or go on from a clip (--video), and its prompt may change (--prompts-at).
Several prompts or seeds make several numbered files and a manifest beside them, by which the same command goes on where
it was stopped. Ctrl-C keeps what was made.

examples:
  python -m filmstill generate "a red star bobs up and down" --seed 1,2 --out star.gif
  python -m filmstill generate "a red star sways" --image star.png --frames 48
  python -m filmstill generate --prompts-at "0: a red star sways; 48: a blue heart sways" --frames 96
  python -m filmstill generate "a red star sways" --frames endless --out - | ffplay -"""


class Seeds(argparse.Action):
    """`--seed 1`, `--seed 1,2,3` or `--seed 1 2 3`: the numbers are seeds, the words after them prompts.

    nargs="+" alone would take the prompt of `--seed 1 "a red star"` for a seed.
    """

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, _option: str | None = None
    ) -> None:
        numbers = list(takewhile(NUMBERS.fullmatch, values))
        prompts = values[len(numbers) :]
        allowed = "allowed: an integer below 2**63, or several: 1,2,3"
        if not numbers:
            parser.error(f"argument --seed: is {values[0]!r}, {allowed}")
        if prompts and LIKE_NUMBERS.fullmatch(prompts[0]):
            parser.error(f"argument --seed: is {prompts[0]!r}, {allowed}; a prompt of digits goes before --seed")
        namespace.seed = [*(namespace.seed or []), *numbers]
        namespace.prompts = [*(namespace.prompts or []), *prompts]


NUMBERS = re.compile(r"[+-]?[0-9]{1,19}(,[+-]?[0-9]{1,19})*")  # one or more seeds
LIKE_NUMBERS = re.compile(r"[\d+\-,.\s]+")  # what is no prompt but a slip: "2," or a number of 20 digits
LARGEST = 2**63  # above every seed, as for the seed of params.yaml


def prompts_and_seeds(arguments: argparse.Namespace) -> tuple[list[str], list[int]]:
    """The prompts and seeds of `generate`. Where only numbers follow --seed, the last one is the prompt.

    Raises FilmstillError where there is no prompt.
    """
    prompts, words = arguments.prompts or [], arguments.seed or ["0"]
    if not prompts and len(words) > 1:
        *words, prompt = words
        prompts = [prompt]
    if not prompts:
        raise FilmstillError("generate: has no prompt, allowed: one or more, each in quotes")
    return prompts, seeds_of(words)


def schedules_and_seeds(arguments: argparse.Namespace) -> tuple[list["PromptSchedule"], list[int]]:
    """What to generate: the prompts of the command line or of a file, or one schedule of prompts; and the seeds.

    Raises FilmstillError unless it is exactly one of the three.
    """
    from filmstill.prompts.text_file import read_lines
    from filmstill.serve.prompt_schedule import PromptSchedule

    file, schedule = arguments.prompts_file, arguments.prompts_at
    if arguments.prompt_change and schedule is None:
        raise FilmstillError(f"--prompt-change: is {arguments.prompt_change}, allowed: with --prompts-at only")
    if file is None and schedule is None:
        prompts, seeds = prompts_and_seeds(arguments)
        return [PromptSchedule.of(prompt) for prompt in prompts], seeds
    if arguments.prompts or (file and schedule):
        raise FilmstillError("generate: has prompts twice, allowed: words, or --prompts FILE, or --prompts-at")
    seeds = seeds_of(arguments.seed or ["0"])
    if schedule is not None:
        return [PromptSchedule.parse(schedule)], seeds
    lines = (line.strip() for line in read_lines(file, "a text file with one prompt per line"))
    if not (schedules := [PromptSchedule.of(line) for line in lines if line]):
        raise FilmstillError(f"{file}: has no prompt, allowed: one or more, each on a line")
    return schedules, seeds


def seeds_of(words: list[str]) -> list[int]:
    """The numbers of --seed. Raises FilmstillError for one that is too large."""
    seeds = [int(number) for word in words for number in word.split(",")]
    for seed in seeds:
        require(abs(seed) < LARGEST, "--seed", seed, "an integer below 2**63")
    return seeds


def frames_or_endless(text: str) -> int | str:
    """The value of --frames."""
    if text == ENDLESS:
        return text
    try:
        frames = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"is {text!r}, allowed: an integer, or {ENDLESS}") from None
    if frames > MOST_FRAMES:
        raise argparse.ArgumentTypeError(f"is {frames}, allowed: at most {MOST_FRAMES:,}, or {ENDLESS}")
    return frames


def given_output(text: str) -> Path:
    """A path as `given_path`, or - for the standard output."""
    return Path(PIPE) if text == PIPE else given_path(text)


def add_generate(commands: Commands) -> None:
    generate = commands.add_parser(
        "generate",
        help="make videos of prompts with a distilled student",
        description=GENERATE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    generate.add_argument("prompts", nargs="*", action="extend", help="one or more prompts, each in quotes")
    generate.add_argument("--prompts", type=given_path, dest="prompts_file", help="a text file, one prompt per line")
    generate.add_argument(
        "--prompts-at", metavar="SCHEDULE", help="prompts that change: '0: a red star sways; 48: a blue heart sways'"
    )
    generate.add_argument(
        "--prompt-change",
        choices=PROMPT_CHANGES,
        help="what a new prompt does to the context: keep it, recache it under the new prompt, or cut it to the sink "
        "and the last frames (default: the student's)",
    )
    opening = generate.add_mutually_exclusive_group()
    opening.add_argument("--image", type=given_path, help="picture that every stream begins with")
    opening.add_argument("--video", type=given_path, help="clip whose last window every stream goes on from")
    generate.add_argument(
        "--fit", choices=FITS, help=f"a picture of another shape is cropped or padded (default {FITS[0]})"
    )
    generate.add_argument(
        "--seed",
        nargs="+",
        action=Seeds,
        metavar="N",
        help="one clip per prompt and seed: 1 or 1,2,3 (default 0); also 1 2 3, up to the first word that is no "
        "number: a prompt that is one goes before --seed, or is the last word",
    )
    generate.add_argument(
        "--out",
        type=given_output,
        default="clip.mp4",
        help=".mp4 or .gif, or - for Matroska on the standard output (default clip.mp4)",
    )
    generate.add_argument(
        "--frames",
        type=frames_or_endless,
        help="latent frames, in whole blocks of the student (default: as trained); or "
        f"{ENDLESS}: until Ctrl-C or until the reader of --out - leaves. A file has a million frames of video at most",
    )
    generate.add_argument(
        "--window", type=int, help="local attention window in frames: the memory of a long stream (default: as trained)"
    )
    generate.add_argument(
        "--student", type=given_path, default=STUDENT, help=f"the student's weights (default {STUDENT})"
    )
    generate.add_argument("--codec", type=given_path, default=CODEC, help=f"the codec (default {CODEC})")
    generate.add_argument("--text", type=given_path, default=TEXT, help=f"the text encoder's folder (default {TEXT})")
    generate.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda computes in bfloat16")
    generate.add_argument("--fast", action="store_true", help="decode by the release's small decoder (TAEHV)")
