"""Keys of work folders, their locks, and how results are published."""

import copy
import errno
import fcntl
import multiprocessing
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from filmstill.errors import FilmstillError
from filmstill.params.load import Values
from filmstill.runtime.logs import log_to_stderr
from filmstill.work import graph
from filmstill.work.folder import locked, publish
from filmstill.work.graph import Inputs, inputs

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


def test_outputs_are_outs_metrics_and_plots():
    stage = graph.stages(Values.read())["distill"]
    assert graph.outputs(stage) == [Path("data/student"), Path("data/metrics.json"), Path("data/loss.tsv")]


def test_a_published_file_is_a_link_and_replaces_what_stood_there():
    made, target = Path("work/x.bin"), Path("data/x.bin")
    made.parent.mkdir()
    made.write_text("new")
    target.parent.mkdir()
    target.write_text("old")
    publish(made, target)
    assert target.read_text() == "new"
    assert target.stat().st_ino == made.stat().st_ino  # large files are not copied
    assert os.listdir("data") == ["x.bin"]


def test_publishing_over_a_link_to_the_cache_leaves_the_cache_alone():
    """DVC may link files of data/ to its cache: publishing replaces the link and does not write through it."""
    Path("cache").write_text("cached")
    Path("data").mkdir()
    os.link("cache", "data/x.bin")
    Path("made").write_text("new")
    publish(Path("made"), Path("data/x.bin"))
    assert Path("cache").read_text() == "cached"
    assert Path("data/x.bin").read_text() == "new"


def test_a_published_folder_replaces_the_old_one_whole():
    made, target = Path("work/out"), Path("data/out")
    (made / "deep").mkdir(parents=True)
    (made / "deep/a").write_text("new")
    target.mkdir(parents=True)
    (target / "stale").write_text("old")
    publish(made, target)
    assert [str(path.relative_to(target)) for path in sorted(target.rglob("*"))] == ["deep", "deep/a"]
    assert (target / "deep/a").stat().st_ino == (made / "deep/a").stat().st_ino
    publish(made, target)  # again, as after a kill between two outs
    assert (made / "deep/a").read_text() == "new"
    assert os.listdir("data") == ["out"]


def test_publishing_where_links_are_impossible_copies(monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    Path("made").write_text("new")
    publish(Path("made"), Path("data/x.bin"))
    assert Path("data/x.bin").read_text() == "new"


def test_publishing_what_was_not_made_is_one_line():
    with pytest.raises(FilmstillError, match=r"work/none: the stage did not make it, but dvc\.yaml lists data/x"):
        publish(Path("work/none"), Path("data/x"))
    assert os.listdir("data") == []


def hold(path: Path, pipe: Any, seconds: float) -> None:
    """In another process: on a message, take the lock, send the time, hold it for some seconds."""
    log_to_stderr()
    pipe.recv()
    with locked(path, "second: waiting"):
        pipe.send(time.monotonic())
        time.sleep(seconds)


@pytest.fixture
def holder(tmp_path) -> Iterator[Callable[[float], tuple[Any, Any]]]:
    """A function that starts a process which will hold tmp_path/deep/lock for some seconds; killed after the test.

    The process is forked before this one locks anything, because a child inherits the locks that are held.
    """
    started = []

    def start(seconds: float) -> tuple[Any, Any]:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(
            target=hold, args=(tmp_path / "deep/lock", theirs, seconds)
        )
        process.start()
        started.append(process)
        return process, ours

    yield start
    for process in started:
        process.kill()
        process.join()


def test_a_second_process_says_that_it_waits_and_then_goes_on(tmp_path, holder, capfd, filmstill_log):
    process, pipe = holder(0)
    with locked(tmp_path / "deep/lock", "first: waiting"):
        pipe.send("go")
        assert not pipe.poll(0.5)
        released = time.monotonic()
    assert pipe.poll(10)
    assert pipe.recv() >= released
    process.join(10)
    assert process.exitcode == 0
    stderr = capfd.readouterr().err
    assert stderr.count("second: waiting") == 1
    assert "first: waiting" not in stderr and filmstill_log.messages == []


def test_a_killed_process_leaves_no_lock(tmp_path, holder, capfd, filmstill_log):
    process, pipe = holder(60)
    pipe.send("go")
    assert pipe.poll(10)
    process.kill()
    process.join(10)
    with locked(tmp_path / "deep/lock", "waiting"):
        pass
    assert capfd.readouterr().err == "" and filmstill_log.messages == []


def test_a_lock_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FilmstillError, match="cannot be written"), locked(tmp_path / "file/lock", "waiting"):
        pass


def test_a_file_system_without_locks_is_one_line(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    message = r"lock: its file system has no locks \(flock: Function not implemented\)"
    with pytest.raises(FilmstillError, match=message), locked(tmp_path / "lock", "waiting"):
        pass
