"""How results are published, and the locks of work folders."""

import errno
import fcntl
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from filmstill.errors import FilmstillError
from filmstill.runtime.logs import log_to_stderr
from filmstill.work.folder import locked, publish


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder as the current one."""
    monkeypatch.chdir(tmp_path)


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
