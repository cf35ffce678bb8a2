"""The command line: `python -m filmstill --help` lists the commands, `command_line.py` has their arguments."""

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from filmstill.command_line import read_words
from filmstill.errors import FilmstillError
from filmstill.runtime.exit import exit_code, run_script
from filmstill.serve.arguments import schedules_and_seeds
from filmstill.serve.options import FITS

if TYPE_CHECKING:
    from filmstill.formats.layouts import Network


def _profile(arguments: argparse.Namespace) -> None:
    from filmstill.errors import FilmstillError
    from filmstill.params.profile import write
    from filmstill.work import graph
    from filmstill.work.required_files import check_required_files

    graph.repository()
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
        profile=arguments.profile,
        overrides=arguments.overrides,
        gpu=arguments.gpu,
        gpus=arguments.gpus,
        gpus_per_node=arguments.gpus_per_node,
        sharding=arguments.sharding,
        offload=arguments.offload,
        efficiency=arguments.efficiency,
        as_json=arguments.as_json,
    )


def _check(_arguments: argparse.Namespace) -> None:
    from filmstill.cluster.config import read_cluster
    from filmstill.params.profile import check
    from filmstill.work.prompt_counts import check_prompt_counts
    from filmstill.work.required_files import check_git, check_releases, check_required_files, provided_prompts

    params = check()
    read_cluster()
    check_git()
    check_required_files(params)
    check_releases(params)
    from filmstill.prompts.filter import check_tables  # imports pandas, which a missing file does not need

    check_tables(provided_prompts(params.prompts))
    check_prompt_counts(params)


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
    from filmstill.serve.generate import Serving, generate
    from filmstill.serve.given import Opening
    from filmstill.serve.streamer import Files

    prompts, seeds = schedules_and_seeds(arguments)
    path = arguments.image or arguments.video
    if arguments.fit and not path:
        raise FilmstillError(f"--fit: is {arguments.fit}, allowed: with --image or --video only")
    serving = Serving(
        frames=arguments.frames,
        window=arguments.window,
        prompt_change=arguments.prompt_change,
        opening=Opening(path, arguments.video is not None, arguments.fit or FITS[0]) if path else None,
        device=arguments.device,
        fast=arguments.fast,
    )
    generate(prompts, seeds, arguments.out, Files(arguments.student, arguments.codec, arguments.text), serving)


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


RUN = {
    "profile": _profile,
    "check": _check,
    "plan": _plan,
    "cluster": _cluster_check,
    "jobs": _jobs,
    "cancel": _cancel,
    "generate": _generate,
    "convert": _convert,
    "results": _results,
    "prune": _prune,
}


def _run(words: list[str]) -> None:
    arguments = read_words(words)
    RUN[arguments.command](arguments)


def main(words: list[str] | None = None) -> int:
    """Run the command of `words`, by default the process's own; returns its exit code."""
    return exit_code(lambda: _run(sys.argv[1:] if words is None else words))


if __name__ == "__main__":
    run_script(main)
