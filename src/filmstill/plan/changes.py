"""What makes a stage fit that does not: changes, the cheapest first, each tried by planning anew."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from filmstill.errors import FilmstillError
from filmstill.params.profile import compose
from filmstill.plan.machine import Machine
from filmstill.plan.run import Run
from filmstill.plan.stages import Stage, plan

MOST_GPUS = 1024
BATCHES = {"ode_pairs": "ode_pairs.batch", "samples": "samples.batch"}  # samples a pass; training has micro-batches


@dataclass(frozen=True)
class Request:
    """What is planned: the run of a profile with overrides."""

    profile: str
    overrides: list[str]
    run: Run

    @classmethod
    def of(cls, profile: str, overrides: list[str], machine: Machine) -> "Request":
        return cls(profile, overrides, Run(compose(profile, overrides), machine))


@dataclass(frozen=True)
class Change:
    """`words`: what to type; `effect`: what it does."""

    words: str
    effect: str
    overrides: tuple[str, ...] = ()
    machine: dict[str, int | bool | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cure:
    """`stage` as it is planned with `changes`, and whether it fits then."""

    changes: list[Change]
    stage: Stage
    fits: bool


def cure(request: Request, stage: Stage) -> Cure | None:
    """The first of `_trials` under which the stage fits; else the one under which it is smallest, if there is any."""
    best: Cure | None = None
    for changes in _trials(request.run, stage):
        try:
            changed = apply(request, changes).run
            after = next(planned for planned in plan(changed) if planned.name == stage.name)
        except FilmstillError:  # a batch that does not come out even
            continue
        if after.fits(changed.machine):
            return Cure(changes, after, True)
        if best is None or after.memory.total < best.stage.memory.total:
            best = Cure(changes, after, False)
    return best


def apply(request: Request, changes: list[Change]) -> Request:
    """`request` with `changes`."""
    overrides = [override for change in changes for override in change.overrides]
    settings = {key: value for change in changes for key, value in change.machine.items()}
    machine = replace(request.run.machine, **settings)  # type: ignore[arg-type]
    if not overrides:
        return replace(request, run=replace(request.run, machine=machine))
    return Request.of(request.profile, [*request.overrides, *overrides], machine)


def _trials(run: Run, stage: Stage) -> Iterator[list[Change]]:
    """One change on the same GPUs, then several, then more GPUs, alone and with all of them."""
    same = list(_on_the_same_gpus(run, stage))
    yield from ([change] for change in same)
    yield from (same[:count] for count in range(2, len(same) + 1))
    more = list(_more_gpus(run.machine)) if stage.name in ("ode_init", "distill") else []
    yield from ([change] for change in more)
    yield from ([*same, change] for change in more if same)


def _on_the_same_gpus(run: Run, stage: Stage) -> Iterator[Change]:
    machine, name = run.machine, stage.name
    training = name in ("ode_init", "distill")
    if name == "encoding":
        yield _override("text.placement=cpu", "prompts are encoded on the CPU")
    if name in BATCHES:
        yield _override(f"{BATCHES[name]}=1", "fewer clips at once")
    if training and run.params.compute.micro_batch != 1:
        yield _override("compute.micro_batch=1", "more accumulation")
    if training and not run.activation_checkpointing:
        yield _override("compute.activation_checkpointing=true", "activations are computed again")
    if training and machine.gpus > 1 and machine.sharding != "full":
        yield Change("--sharding full", "weights, gradients and optimizer over all GPUs", machine={"sharding": "full"})
    if stage.memory.weights and not machine.offload:
        yield Change("--offload", "frozen weights wait in the host's memory", machine={"offload": True})


def _more_gpus(machine: Machine) -> Iterator[Change]:
    gpus = 2 * machine.gpus
    while gpus <= MOST_GPUS:
        effect = "more GPUs, weights, gradients and optimizer over all of them"
        yield Change(f"--gpus {gpus} --sharding full", effect, machine={"gpus": gpus, "sharding": "full"})
        gpus *= 2


def _override(words: str, effect: str) -> Change:
    return Change(words, effect, (words,))
