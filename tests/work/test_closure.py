"""dvc.yaml and pretrain/dvc.yaml list exactly the files that each stage's scripts import."""

import io

import pytest
from omegaconf import OmegaConf
from ruamel.yaml import YAML

from closure import DATA, ROOT, closure, expected_deps

GRAPH = OmegaConf.to_container(OmegaConf.load(ROOT / "dvc.yaml"), resolve=False)["stages"]


@pytest.mark.parametrize("stage", GRAPH)
def test_deps_are_the_import_closure(stage):
    assert sorted(GRAPH[stage]["deps"]) == expected_deps(stage), "run `make deps`"


@pytest.mark.parametrize("stage", GRAPH)
def test_data_deps_are_made_earlier_or_committed(stage):
    earlier = list(GRAPH)[: list(GRAPH).index(stage)]
    made = {
        next(iter(out)) if isinstance(out, dict) else out
        for name in earlier
        for kind in ("outs", "metrics", "plots")
        for out in GRAPH[name].get(kind, [])
    }
    params = OmegaConf.load(ROOT / "params.yaml")
    paths = [OmegaConf.select(params, path[2:-1]) if path.startswith("${") else path for path in DATA[stage]]
    assert all(path in made or (ROOT / path).exists() for path in paths)


def test_deps_of_the_pretraining_are_its_import_closure():
    listed = OmegaConf.load(ROOT / "pretrain/dvc.yaml").stages
    assert list(listed) == ["teacher"]
    assert list(listed.teacher.deps) == expected_deps("teacher", "pretrain/dvc.yaml"), "run `make deps`"
    assert {"pretrain/teacher.py", "src/filmstill/training/teacher.py"} <= set(listed.teacher.deps)


def test_the_pretraining_is_frozen_in_the_form_that_dvc_writes():
    """`make pretrain` unfreezes and freezes it: git must see no other line change, and no run at the root retrains."""
    text, written = (ROOT / "pretrain/dvc.yaml").read_text(), io.StringIO()
    graph = YAML().load(text)
    assert graph["stages"]["teacher"]["frozen"] is True and list(graph["stages"]["teacher"])[-1] == "frozen"
    YAML().dump(graph, written)
    assert written.getvalue() == text


def test_closure_sees_imports_inside_functions_and_packages(tmp_path):
    script = tmp_path / "s.py"
    script.write_text("def f():\n    from filmstill.runtime import randomness\n")
    found = {path.name for path in closure([script])}
    assert {"s.py", "randomness.py", "__init__.py"} <= found
    assert "dit.py" not in found


def test_command_line_is_no_stage_dependency():
    """An edit of a file that only commands use never retrains anything."""
    for stage in GRAPH:
        deps = " ".join(GRAPH[stage]["deps"])
        assert "serve/" not in deps and "__main__" not in deps and "params/schema.py" not in deps
