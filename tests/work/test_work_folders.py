"""Keys of work folders and what they are made of."""

import copy
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from filmstill.errors import FilmstillError
from filmstill.params.load import Values
from filmstill.work import graph
from filmstill.work.graph import PRETRAIN, Inputs, inputs, read_params, work_name

GRAPH: dict[str, Any] = {
    "teacher": {"cmd": "x", "deps": ["teacher.py"], "params": ["teacher"], "outs": ["data/teacher.bin"]},
    "distill": {
        "cmd": "x",
        "deps": ["distill.py", "data/teacher.bin"],
        "params": ["distill", "seed"],
        "outs": ["data/student"],
        "metrics": [{"data/metrics.json": {"cache": False}}],
        "plots": [{"data/loss.tsv": {"x": "step"}}],
    },
}
PARAMS: dict[str, Any] = {"seed": 0, "teacher": {"steps": 3}, "distill": {"lr": 1e-4, "gate": {"min": 0.9}}}
LOCK = {"teacher": {"cmd": "x", "outs": [{"path": "data/teacher.bin", "md5": "aaa"}]}}


@pytest.fixture(autouse=True)
def repository(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(GRAPH, PARAMS, LOCK)
    for source in ("teacher.py", "distill.py"):
        Path(source).write_text(f"# {source}\n")
    return tmp_path


def write(graph: dict | None = None, params: dict | None = None, lock: dict | None = None) -> None:
    for name, value in (("dvc.yaml", graph), ("params.yaml", params), ("dvc.lock", lock)):
        if value is not None:
            Path(name).write_text(yaml.safe_dump(value if name == "params.yaml" else {"stages": value}))


def changed(value: dict, *path: Any, to: object) -> dict:
    """A copy of nested `value` with one entry replaced."""
    out = copy.deepcopy(value)
    inner = out
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = to
    return out


def test_the_key_is_a_function_of_its_inputs():
    key = inputs("distill", Values.read()).key
    assert re.fullmatch("[0-9a-f]{16}", key)
    assert inputs("distill", Values.read()).key == key
    assert inputs("teacher", Values.read()).key != key
    write(params=dict(reversed(PARAMS.items())))  # the order in params.yaml does not matter
    assert inputs("distill", Values.read()).key == key


def test_params_sources_and_recorded_deps_change_the_key():
    keys = [inputs("distill", Values.read()).key]
    write(params=changed(PARAMS, "distill", "lr", to=2e-4))
    keys.append(inputs("distill", Values.read()).key)
    write(params=changed(PARAMS, "seed", to=1))
    keys.append(inputs("distill", Values.read()).key)
    write(params=PARAMS)
    Path("distill.py").write_text("# edited\n")
    keys.append(inputs("distill", Values.read()).key)
    write(lock=changed(LOCK, "teacher", "outs", 0, "md5", to="bbb"))
    keys.append(inputs("distill", Values.read()).key)
    assert len(set(keys)) == 5


def test_what_a_stage_does_not_list_does_not_change_its_key():
    key = inputs("distill", Values.read()).key
    write(params=changed(PARAMS, "teacher", "steps", to=4))
    Path("teacher.py").write_text("# edited\n")
    assert inputs("distill", Values.read()).key == key


def test_a_gate_judges_the_work_and_does_not_name_it():
    before = inputs("distill", Values.read())
    write(params=changed(PARAMS, "distill", "gate", "min", to=0.5))
    after = inputs("distill", Values.read())
    assert after.key == before.key
    assert after != before
    assert after.digest(with_gates=True) != before.digest(with_gates=True)


def test_an_artifact_is_taken_by_its_recorded_hash_and_never_read():
    Path("data").mkdir()
    Path("data/teacher.bin").write_text("anything")
    assert inputs("distill", Values.read()).deps["data/teacher.bin"] == "aaa"


def test_numbers_that_plain_yaml_reads_as_text_are_numbers():
    write(params=changed(PARAMS, "distill", "lr", to=2e-6))
    by_yaml = inputs("distill", Values.read()).key
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("2.0e-06", "2e-06"))
    assert "lr: 2e-06" in Path("params.yaml").read_text()
    assert inputs("distill", Values.read()).params["distill"]["lr"] == 2e-6
    assert inputs("distill", Values.read()).key == by_yaml


def test_inputs_read_from_the_lock_are_those_computed():
    """`prune` relies on it to find the folders whose keys are in dvc.lock."""
    now = inputs("distill", Values.read())
    entry = {
        "deps": [{"path": path, "md5": md5, "size": 1} for path, md5 in now.deps.items()],
        "params": {"params.yaml": {"distill": PARAMS["distill"], "seed": 0}},
    }
    assert Inputs.of_lock(entry) == now


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda: Path("dvc.lock").unlink(), "data/teacher.bin: not in dvc.lock"),
        (lambda: Path("dvc.yaml").write_text("stages: {teacher"), "dvc.yaml: not readable as YAML: while parsing"),
        (lambda: Path("dvc.yaml").write_text("[teacher]"), "dvc.yaml: contains no stages"),
        (lambda: Path("dvc.lock").write_text("stages: {teacher"), "dvc.lock: not the lock file that DVC writes"),
        (lambda: Path("dvc.lock").write_text("stages: [teacher]"), "dvc.lock: not the lock file that DVC writes"),
        (lambda: Path("dvc.lock").write_text(""), "dvc.lock: not the lock file that DVC writes"),
        (lambda: Path("distill.py").unlink(), "distill.py: dvc.yaml depends on it"),
        (lambda: write(params={"seed": 0}), "params.yaml: 'distill' is missing"),
        (lambda: Path("params.yaml").write_text("a: [1\n"), "params.yaml: not readable as YAML"),
        (
            lambda: write(params={"seed": "${nothing}", "distill": {}}),
            "params.yaml: seed: Interpolation key 'nothing' not found",
        ),
        (lambda: Path("params.yaml").unlink(), "params.yaml: no such file"),
    ],
)
def test_inputs_that_cannot_be_known_are_one_line(spoil, message):
    spoil()
    with pytest.raises(FilmstillError, match=re.escape(message)) as error:
        inputs("distill", Values.read())
    assert "\n" not in str(error.value)


def test_a_shard_reads_the_values_of_its_work_folders_key(tmp_path: Path):
    made_from = inputs("distill", Values.read())
    made_from.write(tmp_path / made_from.key)
    write(params={**PARAMS, "distill": {"lr": 5.0}})
    assert Inputs.read(tmp_path / made_from.key) == made_from
    for wrong in ('{"deps": {}, "params": {}}', '{"deps": []}', "[]", ""):
        (tmp_path / made_from.key / "inputs.json").write_text(wrong)
        with pytest.raises(FilmstillError, match=r"inputs\.json: "):
            Inputs.read(tmp_path / made_from.key)


def test_a_source_edited_since_it_was_imported_is_refused():
    made_from, source = inputs("teacher", Values.read()), Path("teacher.py")
    edited = source.stat().st_mtime
    graph.refuse_edited_sources(made_from, edited + 1)
    with pytest.raises(FilmstillError, match=r"teacher\.py: changed since the stage has started"):
        graph.refuse_edited_sources(made_from, edited - 1)
    os.utime(source, (edited + 1000, edited + 1000))
    graph.refuse_edited_sources(made_from, edited - 1)


def test_a_dependency_written_in_between_is_refused(tmp_path: Path):
    before = inputs("teacher", Values.read())
    graph.refuse_rewritten(before, inputs("teacher", Values.read()), tmp_path)
    os.utime("teacher.py", (1, 1))
    now = inputs("teacher", Values.read())
    assert now == before  # by its hash
    assert list(inputs("distill", Values.read()).written) == ["distill.py"]  # not what teacher makes
    with pytest.raises(FilmstillError, match=r"teacher\.py: was written while the stage ran"):
        graph.refuse_rewritten(before, now, tmp_path)


def test_outputs_are_outs_metrics_and_plots():
    stage = graph.stages(Values.read())["distill"]
    assert graph.outputs(stage) == [Path("data/student"), Path("data/metrics.json"), Path("data/loss.tsv")]


def test_the_key_of_a_stage_in_pretrain_is_of_its_own_graph_and_parameters():
    stage = {"wdir": "..", "cmd": "x", "deps": ["teacher.py"], "outs": [{"data/released/x": {"cache": False}}]}
    stage["params"] = [{"pretrain/params.yaml": ["teacher", "seed"]}]
    PRETRAIN.mkdir()
    (PRETRAIN / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"teacher": stage}}))
    (PRETRAIN / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    found = inputs("teacher", read_params(PRETRAIN), PRETRAIN)
    assert found.params == {"teacher": {"steps": 3}, "seed": 0} and list(found.deps) == ["teacher.py"]
    assert found.key != inputs("teacher", Values.read()).key
    assert (work_name("teacher", PRETRAIN), work_name("teacher", graph.ROOT)) == ("pretrain", "teacher")
    recorded = {"deps": [{"path": path, "md5": md5} for path, md5 in found.deps.items()]}
    assert Inputs.of_lock(recorded | {"params": {"pretrain/params.yaml": found.params}}) == found
    (PRETRAIN / "params.yaml").write_text(yaml.safe_dump(PARAMS | {"seed": 1}))
    assert inputs("teacher", read_params(PRETRAIN), PRETRAIN).key != found.key
    (PRETRAIN / "dvc.yaml").write_text("stages: [")
    with pytest.raises(FilmstillError, match=r"^pretrain/dvc\.yaml: not readable as YAML"):
        inputs("teacher", read_params(PRETRAIN), PRETRAIN)
