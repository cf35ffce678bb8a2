"""The files a stage's scripts reach by import: what dvc.yaml must list as its deps.

`python tests/closure.py` (make deps) rewrites the lists in dvc.yaml; tests/test_closure.py holds them.
"""

import ast
import sys
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
WHERE = "filmstill.cluster"  # decides where a stage runs, never what it makes: an edit there makes no stage run again
FANNED_OUT = ("ode_pairs", "samples")  # stages whose shards run through Snakemake
# What a stage reads besides code: artifacts of earlier stages and raw files.
CODEC, TEXT, TEACHER = "data/teacher/codec.safetensors", "data/teacher/text", "data/teacher/teacher.safetensors"
SCORE = "data/teacher/real_score"
DATA = {
    "prompts": ["${prompts.extension}", "${prompts.raw}", "${prompts.unsafe_words}"],
    "teacher": ["${teacher.real_score}", "${teacher.released}"],
    "ode_pairs": ["data/prompts/train.parquet", TEACHER, TEXT],
    "ode_init": ["data/ode_pairs", "data/prompts/train.parquet", CODEC, TEACHER, TEXT],
    "distill": ["data/ode_init/init.safetensors", "data/prompts/train.parquet", CODEC, SCORE, TEACHER, TEXT],
    "samples": [
        "data/distill/student.safetensors",
        "data/ode_init/init.safetensors",
        "data/prompts/eval.parquet",
        CODEC,
        SCORE,
        TEACHER,
        TEXT,
    ],
    "evaluate": ["data/samples", CODEC],
}


def imported_modules(path: Path) -> set[str]:
    """Dotted names that a file may import, at the top or in a function, with the submodules of `from a import b`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files_of(module: str) -> set[Path]:
    """The file of a dotted filmstill name and of every package above it."""
    parts = module.split(".")
    candidates = [SOURCE.joinpath(*parts[: n + 1]) for n in range(len(parts))]
    found = {c / "__init__.py" for c in candidates if (c / "__init__.py").is_file()}
    return found | {c.with_suffix(".py") for c in candidates if c.with_suffix(".py").is_file()}


def closure(scripts: list[Path]) -> set[Path]:
    """Every repository file reached from `scripts` by import, themselves included."""
    reached, waiting = set(), list(scripts)
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        for module in imported_modules(path):
            if module.split(".")[0] == "filmstill" and not f"{module}.".startswith(f"{WHERE}."):
                waiting += files_of(module)
    return reached


def expected_deps(stage: str) -> list[str]:
    """What dvc.yaml must list for `stage`, sorted: its data, its code and its part of the workflow."""
    scripts = [ROOT / "stages" / f"{stage}.py"]
    workflow: list[Path] = []
    if stage in FANNED_OUT:
        scripts.append(ROOT / "workflow" / "scripts" / f"{stage}.py")
        workflow = [ROOT / "workflow" / "Snakefile", ROOT / "workflow" / "rules" / f"{stage}.smk"]
    code = [str(path.relative_to(ROOT)) for path in (*closure(scripts), *workflow)]
    return sorted([*DATA[stage], *code])


def rewrite() -> None:
    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    path = ROOT / "dvc.yaml"
    graph = yaml.load(path.read_text())
    for name, stage in graph["stages"].items():
        stage["deps"] = expected_deps(name)
    with path.open("w") as file:
        yaml.dump(graph, file)


if __name__ == "__main__":
    rewrite()
    print(f"dvc.yaml: deps of {len(DATA)} stages are their import closures", file=sys.stderr)
