"""The command line: `python -m filmstill --help` lists the commands."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from filmstill.artifacts import CODEC, STUDENT, TEXT
from filmstill.runtime.exit import exit_code, run_script

if TYPE_CHECKING:
    from filmstill.formats.layouts import Network

EPILOG = """examples:
  python -m filmstill profile smoke                       a short run: write params.yaml, then `dvc repro`
  python -m filmstill profile embedded distill.lr=5e-5    the laptop profile with one value changed
  python -m filmstill generate "a red three bobs up and down" --seed 1 --out three.gif
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
    """A parser whose errors are one line and exit code 2, as all bad input."""

    def error(self, message: str) -> NoReturn:
        print(f"filmstill: {message} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(2)


Commands = argparse._SubParsersAction  # argparse has no public name for it


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
    profile.set_defaults(run=_profile)

    check = commands.add_parser(
        "check",
        help="check params.yaml, released weights and prompts before a long run",
    )
    check.set_defaults(run=_check)

    _add_plan(commands)
    _add_cluster(commands)
    _add_generate(commands)
    _add_convert(commands)

    results = commands.add_parser("results", help="print the table of the last evaluation and where its pictures are")
    results.set_defaults(run=_results)

    prune = commands.add_parser("prune", help="remove work folders that no branch's dvc.lock names, oldest first")
    prune.add_argument("--dry-run", action="store_true", help="only list what would be removed")
    prune.set_defaults(run=_prune)
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
    plan.set_defaults(run=_plan)


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
    cluster.set_defaults(run=_cluster_check)

    jobs = commands.add_parser("jobs", help="list this repository's jobs on the cluster, live and past")
    jobs.set_defaults(run=_jobs)

    cancel = commands.add_parser("cancel", help="cancel this repository's live jobs; their work is kept")
    cancel.add_argument("stage", nargs="?", help="only this stage's (default: all)")
    cancel.set_defaults(run=_cancel)


def _add_generate(commands: Commands) -> None:
    generate = commands.add_parser("generate", help="make videos of prompts with a distilled student")
    generate.add_argument("prompts", nargs="+", help="one or more prompts, each in quotes")
    generate.add_argument("--seed", type=int, nargs="+", default=[0], help="one clip per prompt and seed (default 0)")
    generate.add_argument("--out", type=Path, default=Path("clip.mp4"), help=".mp4 or .gif (default clip.mp4)")
    generate.add_argument("--frames", type=int, help="latent frames, a multiple of the block (default: as trained)")
    generate.add_argument(
        "--window", type=int, help="local attention window in frames, for long streams (default: as trained)"
    )
    generate.add_argument("--student", type=Path, default=STUDENT, help=f"the student's weights (default {STUDENT})")
    generate.add_argument("--codec", type=Path, default=CODEC, help=f"the codec (default {CODEC})")
    generate.add_argument("--text", type=Path, default=TEXT, help=f"the text encoder's folder (default {TEXT})")
    generate.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda computes in bfloat16")
    generate.add_argument("--fast", action="store_true", help="decode by the release's small decoder (TAEHV)")
    generate.set_defaults(run=_generate)


def _add_convert(commands: Commands) -> None:
    convert = commands.add_parser(
        "convert",
        help="write a transformer's checkpoint in another layout: wan, diffusers, self-forcing, filmstill",
        description=CONVERT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    convert.add_argument("source", type=Path, help="file or folder of any of these layouts")
    convert.add_argument(
        "target",
        type=Path,
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
    convert.set_defaults(run=_convert)


def _profile(arguments: argparse.Namespace) -> None:
    from filmstill.errors import FilmstillError
    from filmstill.params.profile import write
    from filmstill.work.required_files import check_required_files

    params, replaced = write(arguments.name, arguments.overrides)
    if replaced is not None:
        print("\n  ".join([f"{replaced.summary}; kept in {replaced.copy}", *replaced.values]))
    print(f"params.yaml is the profile {arguments.name}; `dvc params diff` shows what changed, `dvc repro` runs it")
    try:
        check_required_files(params)
    except FilmstillError as missing:
        print(f"before `dvc repro`: {missing}")


def _plan(arguments: argparse.Namespace) -> None:
    from filmstill.plan.report import show_plan

    show_plan(
        arguments.profile,
        arguments.overrides,
        arguments.gpu,
        arguments.gpus,
        arguments.gpus_per_node,
        arguments.sharding,
        arguments.offload,
        arguments.efficiency,
        arguments.as_json,
    )


def _check(_arguments: argparse.Namespace) -> None:
    from filmstill.params.profile import check
    from filmstill.work.required_files import check_required_files

    params = check()
    check_required_files(params)
    from filmstill.prompts.filter import check_tables  # imports pandas, which a missing file does not need

    check_tables(params.prompts)


def _cluster_check(arguments: argparse.Namespace) -> None:
    from filmstill.cluster.check import cluster_check

    cluster_check(arguments.wait)


def _jobs(_arguments: argparse.Namespace) -> None:
    from filmstill.cluster.commands import show_jobs

    show_jobs()


def _cancel(arguments: argparse.Namespace) -> None:
    from filmstill.cluster.commands import cancel_jobs

    cancel_jobs(arguments.stage)


def _generate(arguments: argparse.Namespace) -> None:
    from filmstill.serve.generate import generate
    from filmstill.serve.streamer import Files

    generate(
        arguments.prompts,
        arguments.seed,
        arguments.out,
        Files(arguments.student, arguments.codec, arguments.text),
        arguments.frames,
        arguments.window,
        arguments.device,
        arguments.fast,
    )


def _student_facts(arguments: argparse.Namespace) -> "Callable[[Network], dict[str, object]]":
    """What gives the rollout of params.yaml's student, for a file's header; it refuses a network of other sizes."""
    from filmstill.errors import FilmstillError
    from filmstill.models.weights import check_sizes, config_of
    from filmstill.params.profile import check
    from filmstill.training.setup import student_facts

    if arguments.to != "filmstill":
        raise FilmstillError(f"--student: is for --to filmstill, whose header has the rollout; --to is {arguments.to}")
    params = check()

    def facts(network: "Network") -> dict[str, object]:
        check_sizes(arguments.source, network.config, config_of(params.model))
        return student_facts(params.schedule.shift, params.student, params.world, params.model.in_channels)

    return facts


def _convert(arguments: argparse.Namespace) -> None:
    from filmstill.formats.convert import convert

    facts = _student_facts(arguments) if arguments.student else None
    network = convert(arguments.source, arguments.target, arguments.to, arguments.part, arguments.heads, facts=facts)
    config = network.config
    print(
        f"{arguments.target}: {arguments.to}, from {network.format}; dim {config.dim}, {config.num_layers} layers, "
        f"{config.num_heads} heads, {len(network.weights)} tensors"
    )


def _results(_arguments: argparse.Namespace) -> None:
    from filmstill.evaluate.results_table import show_results

    show_results()


def _prune(arguments: argparse.Namespace) -> None:
    from filmstill.cluster.commands import live_keys
    from filmstill.work.prune import prune

    prune(arguments.dry_run, live_keys())


def main(words: list[str] | None = None) -> int:
    arguments = parser().parse_args(words)
    return exit_code(lambda: arguments.run(arguments))


if __name__ == "__main__":
    run_script(main)
