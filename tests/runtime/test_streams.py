"""Streams of a process: any encoding, closed streams and a reader that leaves end no command and no stage."""

import os
import subprocess
import sys

import pytest

from repository import ROOT, environment

RUN = "from filmstill.runtime.exit import exit_code, run_script; run_script(lambda: exit_code(main))"
WORK = rf"""
import logging, sys
from pathlib import Path
from filmstill.runtime.progress import progress

def main():
    with progress("\u00e9", 2) as bar:
        for number in range(2):
            print("\U0001f534 \u00e9 \udcff")
            logging.getLogger("filmstill").warning("\u4e00 \udcff")
            bar.update()
    for _ in range(100_000):  # more than a pipe holds
        print("more")
    Path(sys.argv[1]).write_text("done")

{RUN}
"""


def work(tmp_path: object, redirect: str = "", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run WORK in a shell, which closes or pipes its streams; it leaves tmp_path/done."""
    words = ["bash", "-c", f'set -o pipefail; "$0" -c "$1" "$2" {redirect}', sys.executable, WORK, f"{tmp_path}/done"]
    return subprocess.run(words, env={**environment(ROOT), **variables}, capture_output=True, check=False)


@pytest.mark.parametrize("encoding", ["utf-8", "gbk", "latin-1", "ascii", "ascii:strict", "utf-8:strict"])
def test_what_an_encoding_lacks_is_shown_otherwise(tmp_path, encoding: str):
    done = work(tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    name = encoding.partition(":")[0]
    first = done.stdout.decode(name).splitlines()[0]
    red = "\U0001f534" if name == "utf-8" else "\\U0001f534"
    accent = "\\xe9" if name == "ascii" else "\u00e9"
    assert first == f"{red} {accent} \\udcff"
    one = "\u4e00" if name in ("utf-8", "gbk") else "\\u4e00"
    assert f"warning: {one} \\udcff" in done.stderr.decode(name)


@pytest.mark.parametrize("variables", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_no_locale_stops_the_work(tmp_path, variables: dict[str, str]):
    done = work(tmp_path, **variables)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_not_stop_the_work(tmp_path, redirect: str):
    assert work(tmp_path, redirect).returncode == 0
    assert os.listdir(tmp_path) == ["done"]


def test_a_reader_that_leaves_does_not_stop_the_work(tmp_path):
    done = work(tmp_path, "| head -n 1")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1 and b"Broken pipe" not in done.stderr
    assert os.listdir(tmp_path) == ["done"]


@pytest.mark.parametrize(("variables", "options"), [({"PYTHONUNBUFFERED": "1"}, ()), ({}, ("-u",))])
def test_unbuffered_output_outlives_a_crash(variables: dict[str, str], options: tuple[str, ...]):
    crash = (
        "import os, sys\ndef main(): print('out', end=''); print('err', end='', file=sys.stderr); os.abort()\n" + RUN
    )
    env = environment(ROOT) | variables
    done = subprocess.run([sys.executable, *options, "-c", crash], env=env, capture_output=True, check=False)
    assert done.returncode < 0 and (done.stdout, done.stderr) == (b"out", b"err")


@pytest.mark.parametrize("words", [["results"], ["--help"], ["generate", "--help"], ["nothing"]])
def test_a_command_in_ascii_or_without_a_reader(words: list[str]):
    command = [sys.executable, "-m", "filmstill", *words]
    for shell in ('"$@"', '"$@" | head -n 1', '"$@" >&-', '"$@" 2>&-'):
        env = {**environment(ROOT), "PYTHONIOENCODING": "ascii"}
        done = subprocess.run(["bash", "-c", shell, "-", *command], cwd=ROOT, env=env, capture_output=True, check=False)
        assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr, done.stderr
        assert "|" in shell or done.returncode == (2 if words == ["nothing"] else 0)
