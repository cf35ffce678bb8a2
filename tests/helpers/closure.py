"""The files that a stage's scripts import, directly or not: dvc.yaml must list them as the stage's deps.

`python tests/helpers/closure.py` (make deps) rewrites the lists in dvc.yaml and pretrain/dvc.yaml;
tests/work/test_closure.py checks them.
"""

import ast
import sys
from pathlib import Path

from omegaconf import OmegaConf
from ruamel.yaml import YAML

from filmstill.params.distill import OBJECTIVES

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
# Modules that decide where a stage runs or report its cost. They cannot change a result, so an edit reruns no stage.
NO_DEPENDENCY = (
    "filmstill.cluster",
    "filmstill.work.fanout",
    "filmstill.plan",
    "filmstill.training.telemetry",
    "filmstill.models.flops",
    "filmstill.models.parameter_counts",
    "filmstill.runtime.gpus",
    "filmstill.runtime.stopwatch",
)
FANNED_OUT = ("ode_pairs", "samples")  # stages whose shards Snakemake runs
# The distill stage imports only the objective that params.yaml names, and depends on no other.
OBJECTIVE_FILES = [SOURCE / "filmstill/objectives" / f"{name}.py" for name in OBJECTIVES]
CHOSEN_OBJECTIVE = "src/filmstill/objectives/${distill.objective}.py"
# By stage, the files that it reads: artifacts of earlier stages and raw files.
CODEC, TEXT, TEACHER = "data/teacher/codec.safetensors", "data/teacher/text", "data/teacher/teacher.safetensors"
SCORE = "data/teacher/real_score"
PROVIDED = "data/provided.txt"  # a mark of the stage that finds what the user provides
DATA = {
    "provided": [],
    "prompts": [PROVIDED, "${prompts.extension}", "${prompts.raw}", "${prompts.unsafe_words}"],
    "teacher": [PROVIDED, "${teacher.real_score}", "${teacher.released}"],
    "ode_pairs": ["data/prompts/train.parquet", TEACHER, TEXT],
    "ode_init": ["data/ode_pairs", "data/prompts/train.parquet", CODEC, TEACHER, TEXT],
    "distill": [
        "data/ode_init/init.safetensors",
        "data/ode_pairs",
        "data/prompts/train.parquet",
        CODEC,
        SCORE,
        TEACHER,
        TEXT,
    ],
    "samples": [
        "data/distill/student.safetensors",
        "data/ode_init/init.safetensors",
        "data/prompts/eval.parquet",
        "data/prompts/train.parquet",
        CODEC,
        SCORE,
        TEACHER,
        TEXT,
    ],
    "evaluate": ["data/samples", CODEC],
}
SCRIPTS = {"dvc.yaml": "stages", "pretrain/dvc.yaml": "pretrain"}  # folder of the scripts of each pipeline


def imported_modules(path: Path) -> set[str]:
    """Dotted names that a file imports, at the top or in a function; `from a import b` gives both a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files_of(module: str) -> set[Path]:
    """The file of a module of filmstill and the __init__.py of every package above it."""
    parts = module.split(".")
    candidates = [SOURCE.joinpath(*parts[: n + 1]) for n in range(len(parts))]
    found = {c / "__init__.py" for c in candidates if (c / "__init__.py").is_file()}
    return found | {c.with_suffix(".py") for c in candidates if c.with_suffix(".py").is_file()}


def is_dependency(module: str) -> bool:
    """Whether an edit of a module can change the result of a stage."""
    return module.split(".")[0] == "filmstill" and not any(
        f"{module}.".startswith(f"{excluded}.") for excluded in NO_DEPENDENCY
    )


def closure(scripts: list[Path]) -> set[Path]:
    """Every file of the repository that `scripts` import, directly or not, including the scripts."""
    reached, queue = set(), list(scripts)
    while queue:
        path = queue.pop()
        if path in reached:
            continue
        reached.add(path)
        for module in filter(is_dependency, imported_modules(path)):
            queue += files_of(module)
    return reached


def expected_deps(stage: str, pipeline: str = "dvc.yaml") -> list[str]:
    """The sorted deps that a pipeline must list for `stage`: its data, its code and its files of the workflow."""
    if pipeline != "dvc.yaml":
        code = closure([ROOT / SCRIPTS[pipeline] / f"{stage}.py"])
        begun_with = OmegaConf.load(ROOT / SCRIPTS[pipeline] / "params.yaml").teacher.released
        return sorted([begun_with, *(str(path.relative_to(ROOT)) for path in code)])
    scripts = [ROOT / "stages" / f"{stage}.py"]
    workflow: list[Path] = []
    extra: list[str] = []
    if stage in FANNED_OUT:
        scripts.append(ROOT / "workflow" / "scripts" / f"{stage}.py")
        workflow = [ROOT / "workflow" / "Snakefile", ROOT / "workflow" / "rules" / f"{stage}.smk"]
    if stage == "distill":
        scripts += OBJECTIVE_FILES
        extra = [CHOSEN_OBJECTIVE]
    files = closure(scripts) - set(OBJECTIVE_FILES)
    code = [str(path.relative_to(ROOT)) for path in (*files, *workflow)]
    return sorted([*DATA[stage], *code, *extra])


def rewrite() -> None:
    """Replace the deps of every stage in both pipelines."""
    for pipeline in SCRIPTS:
        yaml = YAML()
        if pipeline == "dvc.yaml":  # the other one is rewritten by `dvc freeze`, in this library's default form
            yaml.width = 120
            yaml.indent(mapping=2, sequence=4, offset=2)
        path = ROOT / pipeline
        graph = yaml.load(path.read_text())
        for name, stage in graph["stages"].items():
            stage["deps"] = expected_deps(name, pipeline)
        with path.open("w") as file:
            yaml.dump(graph, file)


if __name__ == "__main__":
    rewrite()
    print(f"{' and '.join(SCRIPTS)}: the stages' deps are their import closures", file=sys.stderr)
