"""A plan as people read it: two tables and plain sentences; or as JSON, to compare plans."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from filmstill.plan.changes import Cure, Request, cure
from filmstill.plan.machine import USABLE, Machine
from filmstill.plan.run import Run
from filmstill.plan.stages import Stage, plan
from filmstill.runtime.gpus import GIB

PARTS = {  # of memory.Memory, as the table names them
    "weights": "frozen weights",
    "master": "trained weights",
    "average": "their average",
    "optimizer": "optimizer",
    "gradients": "gradients",
    "copies": "copies of weights",
    "activations": "activations",
    "kv_cache": "KV cache",
    "text": "text",
    "codec": "VAE",
}
NOTHING = "–"
LEAST = 0.05 * GIB  # of what is shown as a number
Cures = dict[str, Cure | None]  # by stage, of those that do not fit


def show_plan(
    profile: str,
    overrides: list[str],
    gpu: str,
    gpus: int,
    gpus_per_node: int,
    sharding: str | None,
    offload: bool,
    efficiency: float,
    as_json: bool,
) -> None:
    """Print the plan of a profile with `key=value` overrides. sharding: None for full where there are several GPUs.

    Raises FilmstillError for a parameter, a machine or a batch that cannot be.
    """
    sharding = sharding or ("full" if gpus > 1 else "none")
    machine = Machine(gpu, gpus, gpus_per_node, sharding, offload, efficiency)
    request = Request.of(profile, overrides, machine)
    stages = plan(request.run)
    cures = {stage.name: cure(request, stage) for stage in stages if not stage.fits(machine)}
    if as_json:
        print(json.dumps(as_data(request, stages, cures), indent=2))
        return
    console = Console(highlight=False)
    console.print(memory_table(request.run, stages))
    console.print(cost_table(machine, stages))
    for line in sentences(request.run, stages, cures):
        console.print(line, soft_wrap=True)


def as_data(request: Request, stages: list[Stage], cures: Cures) -> dict[str, Any]:
    """Everything that the tables and sentences say, unrounded: bytes, operations, seconds."""
    run, machine = request.run, request.run.machine
    return {
        "profile": request.profile,
        "overrides": request.overrides,
        "machine": {**asdict(machine), "memory": machine.gpu.memory, "speed": machine.gpu.speed, "usable": USABLE},
        "stages": {stage.name: _stage_data(machine, stage) for stage in stages},
        "encoded_prompt_bytes": _encoded_bytes(run),
        "makes_it_fit": {name: _words(found) if found and found.fits else None for name, found in cures.items()},
    }


def memory_table(run: Run, stages: list[Stage]) -> Table:
    """GiB a GPU, by part, at every stage's fullest moment; below it training's activations either way."""
    shown = [stage for stage in stages if stage.memory.total]
    machine = run.machine
    table = _table(f"Memory a GPU in GiB at each stage's fullest moment, {machine.gpus} × {machine.kind}")
    for stage in shown:
        table.add_column(stage.name, justify="right", min_width=len(stage.name))

    def row(title: str, text: Callable[[Stage], str], **style: Any) -> None:
        table.add_row(title, *map(text, shown), **style)

    for name, title in PARTS.items():
        if any(getattr(stage.memory, name) for stage in shown):
            row(title, lambda stage, name=name: gib(getattr(stage.memory, name)))  # type: ignore[misc]
    row("total", lambda stage: gib(stage.memory.total), style="bold")
    row(f"fits into {gib(USABLE * machine.gpu.memory)}", lambda stage: "yes" if stage.fits(machine) else "NO")
    row("when", lambda stage: stage.peak, end_section=True)
    for activation_checkpointing, title in ((True, "activations, checkpointing"), (False, "activations, all kept")):
        most = most_activations(run, activation_checkpointing)
        row(title, lambda stage, most=most: gib(most.get(stage.name, 0.0)))  # type: ignore[misc]
    return table


def most_activations(run: Run, activation_checkpointing: bool) -> dict[str, float]:
    """Bytes of each training stage's activations at most, with and without checkpointing."""
    compute = replace(run.params.compute, activation_checkpointing=activation_checkpointing)
    stages = plan(Run(replace(run.params, compute=compute), run.machine))
    trained = [stage for stage in stages if stage.memory.optimizer]
    return {stage.name: max(moment.activations for moment in stage.moments.values()) for stage in trained}


def cost_table(machine: Machine, stages: list[Stage]) -> Table:
    """Operations, time and disk."""
    table = _table("Operations, time and disk")
    for heading in ("FLOP", "GPUs", "time", "GPU hours", "artifacts GiB", "checkpoints GiB"):
        table.add_column(heading, justify="right", vertical="bottom", min_width=max(map(len, heading.split())))
    hours = 0.0
    for stage in stages:
        if stage.flops or stage.artifacts:
            seconds = _seconds(machine, stage)
            hours += stage.gpus * seconds / 3600
            work = [f"{stage.flops:.2e}", str(stage.gpus), duration(seconds), f"{stage.gpus * seconds / 3600:.1f}"]
            disk = [gib(stage.artifacts), gib(stage.work)]
            table.add_row(stage.name, *(work if stage.flops else [NOTHING] * 4), *disk)
    total = sum(_seconds(machine, stage) for stage in stages)
    flops, artifacts = sum(stage.flops for stage in stages), sum(stage.artifacts for stage in stages)
    table.add_row("total", f"{flops:.2e}", "", duration(total), f"{hours:.1f}", gib(artifacts), "", style="bold")
    return table


def sentences(run: Run, stages: list[Stage], cures: Cures) -> list[str]:
    """What is assumed, and what does not fit and what would make it fit."""
    machine = run.machine
    speed, memory = machine.gpu.speed / 1e12, gib(machine.gpu.memory)
    placed = f"sharding {machine.sharding}{', offload' if machine.offload else ''}"
    lines = [
        f"Assumed: {machine.efficiency:g} of {speed:g} TFLOP/s (--efficiency), {USABLE:.0%} of {memory} GiB for "
        f"tensors; {placed}.",
        "samples has one GPU: its arms are timed one after the other (as jobs of SLURM's, side by side). DVC's cache "
        "holds the artifacts once more where files cannot share blocks.",
    ]
    if run.params.compute.precision == "float32":
        lines.append("compute.precision is float32: products are slower than the bfloat16 that the times are of.")
    if run.wan_encoder:
        thousand = gib(1000 * _encoded_bytes(run))
        lines.append(f"Every 1,000 encoded prompts take up to {thousand} GiB in .cache/prompts.")
    lines += [_verdict(machine, stage, cures[stage.name]) for stage in stages if stage.name in cures]
    return lines if cures else [*lines, "Every stage fits."]


def _verdict(machine: Machine, stage: Stage, found: Cure | None) -> str:
    usable = gib(USABLE * machine.gpu.memory)
    line = f"{stage.name} does not fit: {gib(stage.memory.total)} GiB of {usable} ({stage.peak})."
    if found and found.fits:
        effects = "; ".join(change.effect for change in found.changes)
        return f"{line} With {_words(found)} it does, in {gib(found.stage.memory.total)} GiB: {effects}."
    line += " Nothing known here makes it fit."
    if found is None:
        return line
    least = found.stage.memory
    part = max(PARTS, key=lambda name: getattr(least, name))
    most = f"most of it {PARTS[part]} ({gib(getattr(least, part))})"
    return f"{line} With {_words(found)} it would still take {gib(least.total)} GiB, {most}."


def _words(found: Cure) -> str:
    return " ".join(change.words for change in found.changes)


def _stage_data(machine: Machine, stage: Stage) -> dict[str, Any]:
    seconds = _seconds(machine, stage)
    return {
        "peak": stage.peak,
        "fits": stage.fits(machine),
        "moments": {name: {**asdict(memory), "total": memory.total} for name, memory in stage.moments.items()},
        "flops": stage.flops,
        "gpus": stage.gpus,
        "seconds": seconds,
        "gpu_hours": stage.gpus * seconds / 3600,
        "artifacts": stage.artifacts,
        "checkpoints": stage.work,
    }


def _encoded_bytes(run: Run) -> int:
    """Of one encoded prompt on disk, at most; the embedded encoder keeps none."""
    return run.params.model.text_len * run.config.text_dim * run.size if run.open else 0


def _seconds(machine: Machine, stage: Stage) -> float:
    return machine.seconds(stage.flops, stage.gpus) if stage.flops else 0.0


def gib(number: float) -> str:
    """Bytes in GiB; a dash for none."""
    if number == 0:
        return NOTHING
    return f"{number / GIB:.1f}" if number >= LEAST else "<0.1"


def duration(seconds: float) -> str:
    """Two units at most: 3 d 4 h, 1 h 10 min, 12 min, 34 s."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("")
    return table
