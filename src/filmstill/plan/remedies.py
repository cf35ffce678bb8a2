"""Changes that make a stage fit into memory, the cheapest first; each is tried by planning the stage with it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from filmstill.errors import FilmstillError
from filmstill.params.profile import compose
from filmstill.plan.machine import Machine
from filmstill.plan.run import Run
from filmstill.plan.stages import StagePlan, plan

MOST_GPUS = 1024
BATCHES = {"ode_pairs": "ode_pairs.batch", "samples": "samples.batch"}  # stages without micro-batches: key of the batch


@dataclass(frozen=True)
class Request:
    """A plan that was requested: a profile, its overrides and the resulting run."""

    profile: str
    overrides: list[str]
    run: Run

    @classmethod
    def of(cls, profile: str, overrides: list[str], machine: Machine) -> "Request":
        return cls(profile, overrides, Run(compose(profile, overrides), machine))


@dataclass(frozen=True)
class Change:
    """A change of a request.

    argument: what to add to the command. effect: what it does, in words. overrides, machine: the parameters and the
    fields of Machine that it sets.
    """

    argument: str
    effect: str
    overrides: tuple[str, ...] = ()
    machine: dict[str, int | bool | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Remedy:
    """`changes`, the stage planned with them, and whether it fits then."""

    changes: list[Change]
    stage: StagePlan
    fits: bool

    @property
    def arguments(self) -> str:
        return " ".join(change.argument for change in self.changes)


def find_remedy(request: Request, stage: StagePlan) -> Remedy | None:
    """The first candidate with which the stage fits, else the one with the least memory; None without candidates."""
    best: Remedy | None = None
    for changes in _candidates(request.run, stage):
        try:
            changed = apply(request, changes).run
            after = next(planned for planned in plan(changed) if planned.name == stage.name)
        except FilmstillError:  # the batch cannot be divided evenly
            continue
        if after.fits(changed.machine):
            return Remedy(changes, after, True)
        if best is None or after.memory.total < best.stage.memory.total:
            best = Remedy(changes, after, False)
    return best


def apply(request: Request, changes: list[Change]) -> Request:
    """`request` with `changes`."""
    overrides = [override for change in changes for override in change.overrides]
    settings = {key: value for change in changes for key, value in change.machine.items()}
    machine = replace(request.run.machine, **settings)  # type: ignore[arg-type]
    if not overrides:
        return replace(request, run=replace(request.run, machine=machine))
    return Request.of(request.profile, [*request.overrides, *overrides], machine)


def _candidates(run: Run, stage: StagePlan) -> Iterator[list[Change]]:
    """One change on the same GPUs, then several; then more GPUs, alone and with all the others."""
    same = list(_on_same_gpus(run, stage))
    yield from ([change] for change in same)
    yield from (same[:count] for count in range(2, len(same) + 1))
    more = list(_on_more_gpus(run.machine)) if stage.name in ("ode_init", "distill") else []
    yield from ([change] for change in more)
    yield from ([*same, change] for change in more if same)


def _on_same_gpus(run: Run, stage: StagePlan) -> Iterator[Change]:
    machine, name = run.machine, stage.name
    training = name in ("ode_init", "distill")
    if name == "encoding":
        yield _override("text.placement=cpu", "prompts are encoded on the CPU")
    if name in BATCHES:
        yield _override(f"{BATCHES[name]}=1", "fewer clips per batch")
    if training and run.params.compute.micro_batch != 1:
        yield _override("compute.micro_batch=1", "more gradient accumulation")
    if training and not run.activation_checkpointing:
        yield _override("compute.activation_checkpointing=true", "activations are recomputed in the backward pass")
    if training and machine.gpus > 1 and machine.sharding != "full":
        effect = "weights, gradients and optimizer state are sharded over all GPUs"
        yield Change("--sharding full", effect, machine={"sharding": "full"})
    if stage.memory.weights and not machine.offload:
        yield Change("--offload", "frozen weights stay in host memory", machine={"offload": True})


def _on_more_gpus(machine: Machine) -> Iterator[Change]:
    gpus = 2 * machine.gpus
    while gpus <= MOST_GPUS:
        effect = "weights, gradients and optimizer state are sharded over more GPUs"
        yield Change(f"--gpus {gpus} --sharding full", effect, machine={"gpus": gpus, "sharding": "full"})
        gpus *= 2


def _override(argument: str, effect: str) -> Change:
    return Change(argument, effect, (argument,))
