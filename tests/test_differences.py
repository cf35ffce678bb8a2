"""docs/differences.md names all 21 defects, and tests and sources that exist."""

import ast
import re

from repository import ROOT

TEXT = (ROOT / "docs/differences.md").read_text()


def test_every_defect_has_its_row():
    rows = re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)
    assert rows == [str(number) for number in range(1, 22)]


def test_every_test_it_names_exists():
    """A cited file is followed by its functions, up to the next file."""
    defined: dict[str, set[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        functions = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
        defined.setdefault(path.name, set()).update(functions)
    cited, file = [], ""
    for name in re.findall(r"`(test_\w+(?:\.py)?)`", TEXT):
        if name.endswith(".py"):
            file = name
        else:
            cited.append((file, name))
    missing = [f"{file}: {name}" for file, name in cited if name not in defined.get(file, set())]
    assert len(cited) > 40 and missing == []


def test_every_source_it_names_exists():
    named = set(re.findall(r"`((?:[a-z_0-9]+/)+[a-z_0-9]+\.py)`", TEXT))
    assert len(named) > 8
    assert [name for name in sorted(named) if not (ROOT / "src/filmstill" / name).is_file()] == []
