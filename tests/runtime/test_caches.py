"""Caches of libraries where the home folder cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from filmstill.runtime import caches
from filmstill.runtime.caches import use_writable_caches
from repository import ROOT, environment

VARIABLES = ("XDG_CACHE_HOME", "MPLCONFIGDIR", "TRITON_CACHE_DIR")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder of temporary files; no variable is set, and all are restored afterwards."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that the variables that the function sets are removed again
        monkeypatch.delenv(name)
    monkeypatch.setattr(caches.tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_home_that_can_be_written_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    use_writable_caches()
    assert not set(VARIABLES) & os.environ.keys()


@pytest.mark.parametrize(
    ("home", "cache"),
    [("/proc/nohome", None), (None, None), ("/tmp", "/proc/nocache"), ("/dev/null", None)],
)
def test_another_one_is_replaced(temporary: Path, monkeypatch: pytest.MonkeyPatch, home: str | None, cache: str | None):
    monkeypatch.setenv("HOME", home or "")
    if home is None:
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(caches.os.path, "expanduser", lambda path: path)  # a user without an entry in passwd
    if cache:
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
    for _ in range(2):
        use_writable_caches()
        folder = temporary / f"filmstill-cache-{os.getuid()}"
        values = [os.environ[name] for name in VARIABLES]
        assert values == [str(folder), str(folder / "matplotlib"), str(folder / "triton")]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not Path("~").exists()


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/proc/nohome")
    monkeypatch.setenv("MPLCONFIGDIR", "/somewhere")
    use_writable_caches()
    assert os.environ["MPLCONFIGDIR"] == "/somewhere"


def test_a_folder_of_another_user_is_not_used(temporary: Path, monkeypatch: pytest.MonkeyPatch):
    folder = temporary / f"filmstill-cache-{os.getuid()}"
    folder.mkdir()
    try:
        os.chown(folder, 12345, 12345)
    except PermissionError:
        pytest.skip("only root can make a folder of another user")
    monkeypatch.setenv("HOME", "/proc/nohome")
    use_writable_caches()
    found = Path(os.environ["XDG_CACHE_HOME"])
    assert found != folder and found.stat().st_uid == os.getuid()


def test_matplotlib_does_not_warn_in_a_command():
    line = "from filmstill.runtime.exit import exit_code; exit_code(lambda: __import__('matplotlib.pyplot'))"
    without = {name: value for name, value in environment(ROOT).items() if name not in VARIABLES}
    variables = without | {"HOME": "/proc/nohome"}
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, env=variables, check=True)
    assert done.stderr == ""
