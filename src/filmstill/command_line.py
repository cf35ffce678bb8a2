"""The commands' arguments, and how the words of a command line are read."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from filmstill.errors import FilmstillError
from filmstill.runtime.given_path import given_path, repository_above
from filmstill.serve.arguments import Commands, add_generate

EPILOG = """examples:
  python -m filmstill profile smoke                       a short run: write params.yaml, then `dvc repro`
  python -m filmstill profile embedded distill.lr=5e-5    the laptop profile with one value changed
  python -m filmstill generate "a red star bobs up and down" --seed 1 --out star.gif
  python -m filmstill cluster check                       can SLURM run what cluster.yaml requests?
  python -m filmstill prune --dry-run                     list old work folders and their sizes

The pipeline itself is DVC's: `dvc repro` runs it, `dvc dag` draws it, `dvc metrics show` and
`dvc plots show` read its results, `dvc exp run -S distill.lr=5e-5` tries a change."""


CONVERT = """Write the transformer of a checkpoint in another layout, bit for bit.

The layout of SOURCE is recognised:
  wan            Wan-AI/Wan2.1-T2V-1.3B: a folder with config.json and safetensors, or a file alone, ComfyUI's too
  diffusers      a folder for WanTransformer3DModel.from_pretrained, or a pipeline with transformer/ inside
  self-forcing   a .pt of Self-Forcing or CausVid, with generator and perhaps generator_ema
  filmstill      a .safetensors of this pipeline, such as data/distill/student.safetensors

examples:
  python -m filmstill convert data/distill/student.safetensors export --to diffusers
  python -m filmstill convert self_forcing_dmd.pt student.safetensors --to filmstill --student
  python -m filmstill convert Wan2.1-T2V-1.3B wan.pt --to self-forcing"""


class OneLine(argparse.ArgumentParser):
    """A parser whose errors are those of all bad input: one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise FilmstillError(f"{message} (see {self.prog} --help)")


def read_words(words: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command. From a subfolder of the repository, go to its root, where every command works.

    Raises FilmstillError for a word that is not text or not allowed; ends the process, as argparse does, for --help.
    """
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise FilmstillError(
                f"argument {repr(os.fsencode(word))[1:]}: is not text in {sys.getfilesystemencoding()}, this locale's "
                "encoding; convert it (iconv -t utf-8), or set LC_ALL=C.UTF-8"
            ) from None
    arguments = parser().parse_args(words)
    if root := repository_above():
        os.chdir(root)
    return arguments


def parser() -> argparse.ArgumentParser:
    top = OneLine(
        prog="python -m filmstill",
        description="Distil a video diffusion teacher into a student that streams.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    profile = commands.add_parser(
        "profile", help="write params.yaml: schema, then params/<name>.yaml, then key=value overrides"
    )
    profile.add_argument("name", help="embedded (the defaults), or the name of a file in params/")
    profile.add_argument("overrides", nargs="*", metavar="key=value", help="for instance distill.lr=5e-5")

    commands.add_parser("check", help="check params.yaml, released weights, prompts and git before a long run")
    _add_plan(commands)
    _add_cluster(commands)
    add_generate(commands)
    _add_convert(commands)

    commands.add_parser("results", help="print the table of the last evaluation and where its pictures are")

    prune = commands.add_parser(
        "prune", help="remove work folders that no branch, experiment or checkout needs, oldest first"
    )
    prune.add_argument("--dry-run", action="store_true", help="only list what would be removed")
    return top


def _add_plan(commands: Commands) -> None:
    plan = commands.add_parser("plan", help="print memory, time and disk that a profile needs on given GPUs")
    plan.add_argument("profile", help="embedded, or the name of a file in params/")
    plan.add_argument("overrides", nargs="*", metavar="key=value", help="for instance compute.micro_batch=1")
    plan.add_argument(
        "--gpu", default="h100-80gb", help="kind of GPU (default h100-80gb; an unknown kind prints the list)"
    )
    plan.add_argument("--gpus", type=int, default=1, help="number of GPUs (default 1)")
    plan.add_argument("--gpus-per-node", type=int, default=8, help="for --sharding hybrid (default 8)")
    plan.add_argument("--sharding", help="none, hybrid or full (default: full on several GPUs)")
    plan.add_argument("--offload", action="store_true", help="keep frozen weights in the host's memory")
    plan.add_argument(
        "--efficiency", type=float, default=0.4, help="share of the GPU's speed that is reached (default 0.4)"
    )
    plan.add_argument("--json", action="store_true", dest="as_json", help="print the same numbers as JSON")


def _add_cluster(commands: Commands) -> None:
    cluster = commands.add_parser(
        "cluster", help="check: run a short job with cluster.yaml's resources and print what it finds"
    )
    cluster.add_argument("what", choices=["check"], help="check: submit a job of about a minute and print what to fix")
    cluster.add_argument(
        "--wait",
        type=float,
        default=10.0,
        metavar="MINUTES",
        help="how long the job may wait to start (default 10)",
    )

    commands.add_parser("jobs", help="list this repository's jobs on the cluster, live and past")

    cancel = commands.add_parser("cancel", help="cancel this repository's live jobs; their work is kept")
    cancel.add_argument("stage", nargs="?", help="only this stage's (default: all)")


def _add_convert(commands: Commands) -> None:
    convert = commands.add_parser(
        "convert",
        help="write a transformer's checkpoint in another layout: wan, diffusers, self-forcing, filmstill",
        description=CONVERT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    convert.add_argument("source", type=given_path, help="file or folder of any of these layouts")
    convert.add_argument(
        "target",
        type=given_path,
        help="file or folder to write, which must not exist: a folder (wan, diffusers), .pt or .safetensors",
    )
    convert.add_argument(
        "--to", required=True, choices=["wan", "diffusers", "self-forcing", "filmstill"], help="layout of the target"
    )
    convert.add_argument("--part", help="which network of a .pt (default: generator_ema if it has one, else generator)")
    convert.add_argument(
        "--heads", type=int, metavar="N", help="attention heads, for a .pt whose size is none of Wan2.1's"
    )
    convert.add_argument(
        "--student",
        action="store_true",
        help="with --to filmstill: add the rollout of params.yaml's student, so that generate can run it",
    )
