"""A plan as text, two tables and sentences, or as JSON, to compare plans."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console

from filmstill.plan.machine import USABLE, Machine
from filmstill.plan.remedies import Remedy, Request, find_remedy
from filmstill.plan.run import Run
from filmstill.plan.stages import StagePlan, plan
from filmstill.runtime.gpus import GIB
from filmstill.runtime.text_table import TextTable

PARTS = {  # field of memory.Memory -> its name in the table
    "weights": "frozen weights",
    "master": "trained weights",
    "average": "EMA weights",
    "optimizer": "optimizer state",
    "gradients": "gradients",
    "copies": "weight copies",
    "activations": "activations",
    "kv_cache": "KV cache",
    "text": "text",
    "codec": "VAE",
}
DASH = "–"
LEAST = 0.05 * GIB  # the smallest size shown as a number
Remedies = dict[str, Remedy | None]  # by stage, of the stages that do not fit


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
    """Print the plan of a profile with `key=value` overrides. sharding None: full if there are several GPUs.

    Raises FilmstillError for invalid parameters, an invalid machine or a batch that cannot be divided evenly.
    """
    sharding = sharding or ("full" if gpus > 1 else "none")
    machine = Machine(gpu, gpus, gpus_per_node, sharding, offload, efficiency)
    request = Request.of(profile, overrides, machine)
    stages = plan(request.run)
    remedies = {stage.name: find_remedy(request, stage) for stage in stages if not stage.fits(machine)}
    if as_json:
        print(json.dumps(as_data(request, stages, remedies), indent=2))
        return
    console = Console(highlight=False, markup=False)
    console.print(memory_table(request.run, stages))
    console.print(cost_table(machine, stages))
    for line in sentences(request.run, stages, remedies):
        console.print(line, soft_wrap=True)


def as_data(request: Request, stages: list[StagePlan], remedies: Remedies) -> dict[str, Any]:
    """The numbers of tables and sentences, unrounded: bytes, operations, seconds."""
    run, machine = request.run, request.run.machine
    return {
        "profile": request.profile,
        "overrides": request.overrides,
        "machine": {**asdict(machine), "memory": machine.gpu.memory, "speed": machine.gpu.speed, "usable": USABLE},
        "stages": {stage.name: _stage_data(machine, stage) for stage in stages},
        "encoded_prompt_bytes": _encoded_bytes(run),
        "makes_it_fit": {name: found.arguments if found and found.fits else None for name, found in remedies.items()},
    }


def memory_table(run: Run, stages: list[StagePlan]) -> TextTable:
    """GiB per GPU by part in every stage's peak phase; below, training's activations with and without checkpointing."""
    shown = [stage for stage in stages if stage.memory.total]
    machine = run.machine
    title = f"Memory per GPU in GiB, in the peak phase of each stage; {machine.gpus} × {machine.kind}"
    table = TextTable(title, ["", *(stage.name for stage in shown)])

    def row(title: str, text: Callable[[StagePlan], str], **style: Any) -> None:
        table.add(title, *map(text, shown), **style)

    for name, title in PARTS.items():
        if any(getattr(stage.memory, name) for stage in shown):
            row(title, lambda stage, name=name: gib(getattr(stage.memory, name)))  # type: ignore[misc]
    row("total", lambda stage: gib(stage.memory.total), bold=True)
    row(f"fits into {gib(USABLE * machine.gpu.memory)}", lambda stage: "yes" if stage.fits(machine) else "NO")
    row("peak phase", lambda stage: stage.peak, end_section=True)
    for checkpointing, setting in ((True, "on"), (False, "off")):
        most = most_activations(run, checkpointing)
        row(f"activations, checkpointing {setting}", lambda stage, most=most: gib(most.get(stage.name, 0.0)))  # type: ignore[misc]
    return table


def most_activations(run: Run, activation_checkpointing: bool) -> dict[str, float]:
    """Most bytes of activations in each training stage, with or without checkpointing."""
    compute = replace(run.params.compute, activation_checkpointing=activation_checkpointing)
    stages = plan(Run(replace(run.params, compute=compute), run.machine))
    trained = [stage for stage in stages if stage.memory.optimizer]
    return {stage.name: max(memory.activations for memory in stage.phases.values()) for stage in trained}


def cost_table(machine: Machine, stages: list[StagePlan]) -> TextTable:
    """Operations, time and disk by stage."""
    headings = ["", "FLOP", "GPUs", "time", "GPU hours", "artifacts GiB", "checkpoints GiB"]
    table = TextTable("Operations, time and disk", headings)
    hours = 0.0
    for stage in stages:
        if stage.flops or stage.artifacts:
            seconds = _seconds(machine, stage)
            hours += stage.gpus * seconds / 3600
            work = [f"{stage.flops:.2e}", str(stage.gpus), duration(seconds), f"{stage.gpus * seconds / 3600:.1f}"]
            disk = [gib(stage.artifacts), gib(stage.checkpoints)]
            table.add(stage.name, *(work if stage.flops else [DASH] * 4), *disk)
    total = sum(_seconds(machine, stage) for stage in stages)
    flops, artifacts = sum(stage.flops for stage in stages), sum(stage.artifacts for stage in stages)
    table.add("total", f"{flops:.2e}", "", duration(total), f"{hours:.1f}", gib(artifacts), "", bold=True)
    return table


def sentences(run: Run, stages: list[StagePlan], remedies: Remedies) -> list[str]:
    """The assumptions of a plan, and for each stage that does not fit what would make it fit."""
    machine = run.machine
    speed, memory = machine.gpu.speed / 1e12, gib(machine.gpu.memory)
    placement = f"sharding {machine.sharding}{', offload' if machine.offload else ''}"
    lines = [
        f"Assumed: {machine.efficiency:g} of {speed:g} TFLOP/s (--efficiency), {USABLE:.0%} of {memory} GiB for "
        f"tensors; {placement}.",
        "samples uses one GPU: one arm after another, or side by side as SLURM jobs; then all in turns, to be timed. "
        "DVC's cache takes the size of the artifacts once more unless the file system can share blocks between files.",
    ]
    if run.params.compute.precision == "float32":
        lines.append("compute.precision is float32: stages take longer than these times, which assume bfloat16.")
    if run.wan_encoder:
        thousand = gib(1000 * _encoded_bytes(run))
        lines.append(f"Every 1,000 encoded prompts take up to {thousand} GiB in .cache/prompts.")
    lines += [_verdict(machine, stage, remedies[stage.name]) for stage in stages if stage.name in remedies]
    return lines if remedies else [*lines, "Every stage fits."]


def _verdict(machine: Machine, stage: StagePlan, found: Remedy | None) -> str:
    usable = gib(USABLE * machine.gpu.memory)
    line = f"{stage.name} does not fit: {gib(stage.memory.total)} GiB of {usable} ({stage.peak})."
    if found and found.fits:
        effects = "; ".join(change.effect for change in found.changes)
        return f"{line} With {found.arguments} it does, in {gib(found.stage.memory.total)} GiB: {effects}."
    line += " No change that plan knows makes it fit."
    if found is None:
        return line
    memory = found.stage.memory
    largest = max(PARTS, key=lambda name: getattr(memory, name))
    part = f"most of it {PARTS[largest]} ({gib(getattr(memory, largest))})"
    return f"{line} With {found.arguments} it would still take {gib(memory.total)} GiB, {part}."


def _stage_data(machine: Machine, stage: StagePlan) -> dict[str, Any]:
    seconds = _seconds(machine, stage)
    return {
        "peak": stage.peak,
        "fits": stage.fits(machine),
        "phases": {name: {**asdict(memory), "total": memory.total} for name, memory in stage.phases.items()},
        "flops": stage.flops,
        "gpus": stage.gpus,
        "seconds": seconds,
        "gpu_hours": stage.gpus * seconds / 3600,
        "artifacts": stage.artifacts,
        "checkpoints": stage.checkpoints,
    }


def _encoded_bytes(run: Run) -> int:
    """Most bytes of one encoded prompt on disk; the embedded encoder stores none."""
    return run.params.model.text_len * run.config.text_dim * run.size if run.open else 0


def _seconds(machine: Machine, stage: StagePlan) -> float:
    return machine.seconds(stage.flops, stage.gpus) if stage.flops else 0.0


def gib(number: float) -> str:
    """Bytes in GiB; a dash for 0."""
    if number == 0:
        return DASH
    return f"{number / GIB:.1f}" if number >= LEAST else "<0.1"


def duration(seconds: float) -> str:
    """Seconds in at most two units: 3 d 4 h, 1 h 10 min, 12 min, 34 s."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
