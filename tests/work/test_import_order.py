"""Imports follow the order of the folders in docs/extending.md, and there are no import cycles."""

from pathlib import Path

from closure import ROOT, SOURCE, imported_modules
from filmstill.params.distill import OBJECTIVES

PACKAGE = SOURCE / "filmstill"


def rooms() -> list[str]:
    """Folders and files of src/filmstill in the first fenced block of docs/extending.md, from the ground up."""
    block = (ROOT / "docs/extending.md").read_text().split("```")[1]
    return [line.split()[0].removesuffix(".py").rstrip("/") for line in block.strip().splitlines()]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports() -> dict[str, set[str]]:
    """By module, the filmstill modules that it imports, at the top or in a function."""
    files = {name_of(path) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    found = {}
    for name in files:
        modules = imported_modules(PACKAGE / f"{name.replace('.', '/')}.py")
        found[name] = {module.removeprefix("filmstill.") for module in modules} & files - {name}
    return found


def room_of(name: str) -> str:
    return name.split(".")[0]


def test_every_folder_and_file_has_its_line():
    paths = (path for path in PACKAGE.iterdir() if path.name not in ("__init__.py", "__pycache__"))
    assert sorted(rooms()) == sorted(path.name.removesuffix(".py") for path in paths)


def test_a_file_imports_only_rooms_listed_before_its_own():
    order = {room: place for place, room in enumerate(rooms())}
    later = [
        f"{name} -> {other}"
        for name, others in imports().items()
        for other in others
        if order[room_of(other)] > order[room_of(name)]
    ]
    assert later == []


def test_no_imports_run_in_a_circle():
    left = imports()
    while free := {name for name, others in left.items() if not others & left.keys()}:
        left = {name: others for name, others in left.items() if name not in free}
    assert sorted(left) == []


def test_no_objective_imports_another():
    """The distill stage depends on the chosen objective's file alone: what two share must have a file of its own."""
    files = {f"objectives.{name}" for name in OBJECTIVES}
    assert {name: others & files for name, others in imports().items() if name in files} == {
        name: set() for name in files
    }
