"""`make pretrain`: killed and resumed, published, imported by the stage `teacher`, not retrained from the root."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from repository import clone, commit, dvc, run
from stage_runs import hold, let_go, start, wait_until_held

RELEASE = "data/released/symbols-natural"
TINY = {"dim: 128": "dim: 48", "ffn_dim: 512": "ffn_dim: 96", "num_layers: 4": "num_layers: 2"}
SHORT = {
    "released: data/released/symbols-natural-0": "released: data/released/none",
    "steps: 5500": "steps: 6",
    "checkpoint_every: 100": "checkpoint_every: 2",
    "sheet_every: 500": "sheet_every: 6",
}


def write_tiny(file: Path, changes: dict[str, str]) -> None:
    text = file.read_text()
    for before, after in changes.items():
        assert text.count(f"  {before} ") == 1
        text = text.replace(f"  {before} ", f"  {after} ")
    file.write_text(text)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A clone whose pretraining takes seconds, without the release that this repository may hold."""
    folder = clone(tmp_path / "clone", "natural")
    run("rm", "-rf", RELEASE, "pretrain/dvc.lock", cwd=folder)
    write_tiny(folder / "pretrain/params.yaml", TINY | SHORT)
    write_tiny(folder / "params.yaml", TINY)
    commit(folder, "tiny")
    return folder


def make_pretrain(folder: Path) -> subprocess.CompletedProcess[str]:
    """The recipe of `make pretrain`, with this interpreter's tools."""
    (folder / ".venv").mkdir(exist_ok=True)
    (folder / ".venv/ready").touch()
    return run("make", "pretrain", cwd=folder, check=False)


def changed_files(folder: Path) -> list[str]:
    return run("git", "status", "--short", "--untracked-files=all", cwd=folder).stdout.splitlines()


def test_a_killed_pretraining_goes_on_and_the_root_only_imports_it(repository: Path):
    check = run("python", "-m", "filmstill", "check", cwd=repository, check=False)
    assert check.returncode == 2 and f"{RELEASE}: no such folder; `git checkout" in check.stderr
    hold(repository, step=4)
    commit(repository, "held")
    killed = start(repository, "pretrain/teacher.py")
    wait_until_held(repository)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    assert not (repository / RELEASE).exists()
    let_go(repository)
    done = make_pretrain(repository)
    assert done.returncode == 0, done.stderr
    assert "4/6" in done.stderr and "0/6" not in done.stderr  # it went on from its last checkpoint
    kept = [line for line in changed_files(repository) if not line.endswith(("held", "go", ".venv/ready"))]
    names = ["README.md", "codec.safetensors", "config.json", "diffusion_pytorch_model.safetensors", "release.json"]
    expected = [f"?? {RELEASE}/{name}" for name in (*names, "text/encoder.json")]
    assert kept == [*expected, "?? pretrain/dvc.lock"]  # pretrain/dvc.yaml is frozen again, and as it was
    commit(repository, "released")

    recorded, source = (repository / "pretrain/dvc.lock").read_text(), repository / "src/filmstill/training/teacher.py"
    source.write_text(source.read_text() + "\n# edited\n")
    assert run("python", "-m", "filmstill", "check", cwd=repository).returncode == 0
    assert "up to date" in dvc(repository, "status", "pretrain/dvc.yaml").stdout
    assert "pretrain/teacher.py" not in dvc(repository, "repro", "teacher").stdout
    assert (repository / "pretrain/dvc.lock").read_text() == recorded
    made = yaml.safe_load((repository / "dvc.lock").read_text())["stages"]["teacher"]
    by_dvc = {out["path"]: out["md5"] for out in yaml.safe_load(recorded)["stages"]["teacher"]["outs"]}
    assert {dep["path"]: dep["md5"] for dep in made["deps"]}[RELEASE] == by_dvc[RELEASE]
    assert (repository / "data/teacher/sheets/imported.png").is_file()
    assert not any((repository / "data/teacher/curves").iterdir())


def test_an_edit_while_it_trains_is_not_published(repository: Path):
    hold(repository, step=1)
    commit(repository, "held")
    running = start(repository, "pretrain/teacher.py")
    wait_until_held(repository)
    write_tiny(repository / "pretrain/params.yaml", {"steps: 6": "steps: 7"})
    let_go(repository)
    output, _ = running.communicate(timeout=600)
    assert running.returncode == 2 and not (repository / RELEASE).exists()
    assert "teacher: its sources or pretrain/params.yaml changed while it ran" in output
