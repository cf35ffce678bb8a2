"""`profile` writes every key with its sentence, and replaces no value of the user's own without a copy."""

import shutil
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from filmstill.__main__ import main
from filmstill.params.commented import WIDTH, commented
from filmstill.params.keys import SENTENCE
from filmstill.params.profile import compose, names
from filmstill.params.schema import Params
from repository import ROOT


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the graph, the profiles, the raw prompts, and the params.yaml of the embedded profile."""
    shutil.copytree(ROOT / "params", tmp_path / "params")
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / "data/prompts").mkdir(parents=True)
    for name in ("raw.csv", "extension.csv", "unsafe_words.txt"):
        shutil.copy(ROOT / "data/prompts" / name, tmp_path / "data/prompts")
    monkeypatch.chdir(tmp_path)
    assert main(["profile", "embedded"]) == 0
    return tmp_path


def sections(params: Any) -> list[Any]:
    """A dataclass and every dataclass below it."""
    below = (getattr(params, field.name) for field in fields(params))
    return [params, *(inner for value in below if is_dataclass(value) for inner in sections(value))]


def test_every_key_has_a_sentence_of_its_own():
    for section in sections(Params()):
        bare = [
            field.name
            for field in fields(section)
            if not is_dataclass(getattr(section, field.name)) and not field.metadata.get(SENTENCE)
        ]
        assert not bare, f"{type(section).__name__}: {bare}"


@pytest.mark.parametrize("name", ["embedded", "natural", "smoke", "wan-1.3b", "wan-14b-teacher", "wan-mini"])
def test_comments_change_no_value_and_fit_the_page(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    assert name in names()
    params = compose(name, [])
    text = commented(params)
    assert OmegaConf.create(text) == OmegaConf.create(OmegaConf.to_yaml(OmegaConf.structured(params)))
    commented_lines = [line for line in text.splitlines() if "#" in line]
    assert all(len(line) <= WIDTH for line in commented_lines) and len(commented_lines) > 90


def test_the_committed_parameters_are_what_profile_writes(repository: Path):
    assert (repository / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()


def test_nothing_is_copied_where_no_value_is_the_users_own(repository: Path, capsys: pytest.CaptureFixture):
    assert main(["profile", "smoke"]) == 0
    assert main(["profile", "embedded", "distill.lr=1e-4"]) == 0
    assert main(["profile", "embedded"]) == 0
    assert sorted(path.name for path in repository.glob("params.yaml*")) == ["params.yaml"]
    assert "that its profile" not in capsys.readouterr().out


def test_own_values_are_named_and_kept(repository: Path, capsys: pytest.CaptureFixture):
    capsys.readouterr()
    path = repository / "params.yaml"
    edited = path.read_text().replace("beta2: 0.99 ", "beta2: 0.5 ").replace("denoising_steps: 4", "denoising_steps: 2")
    path.write_text(edited)
    assert main(["profile", "embedded", "student.denoising_steps=2"]) == 0  # keeps one of the two
    assert capsys.readouterr().out.splitlines()[:2] == [
        "params.yaml: had 1 value that its profile does not set; kept in params.yaml.bak",
        "  distill.beta2: 0.5, now 0.99",
    ]
    assert (repository / "params.yaml.bak").read_text() == edited
    path.write_text(edited + "mine: 1\n")
    assert main(["profile", "embedded"]) == 0
    assert capsys.readouterr().out.splitlines()[:4] == [
        "params.yaml: had 3 values that its profile does not set; kept in params.yaml.bak.1",
        "  student.denoising_steps: 2, now 4",
        "  distill.beta2: 0.5, now 0.99",
        "  mine: 1, now no key",
    ]
    assert (repository / "params.yaml.bak").read_text() == edited
    assert (repository / "params.yaml.bak.1").read_text() == edited + "mine: 1\n"


@pytest.mark.parametrize("override", ["text.negative=bad quality, blurry", "text.negative='a`b'", "text.negative=a\nb"])
def test_an_override_with_blanks_or_quotes_is_no_value_of_the_users_own(
    repository: Path, capsys: pytest.CaptureFixture, override: str
):
    assert main(["profile", "smoke", override]) == 0
    assert main(["check"]) == 0
    written = OmegaConf.load(repository / "params.yaml")
    assert written == OmegaConf.structured(compose("smoke", [override]))
    capsys.readouterr()
    assert main(["profile", "embedded"]) == 0
    assert "had" not in capsys.readouterr().out or "\n" in override


@pytest.mark.parametrize("content", [b"seed: [1", b"\xff\xfe\x00s"])
def test_a_file_that_cannot_be_read_is_kept(repository: Path, capsys: pytest.CaptureFixture, content: bytes):
    (repository / "params.yaml").write_bytes(content)
    assert main(["profile", "embedded"]) == 0
    said = capsys.readouterr().out.splitlines()[-2]
    assert said.startswith("params.yaml: not readable as YAML: ") and said.endswith("; kept in params.yaml.bak")
    assert (repository / "params.yaml.bak").read_bytes() == content
    assert (repository / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()


def test_a_refused_profile_replaces_and_copies_nothing(repository: Path, capsys: pytest.CaptureFixture):
    path = repository / "params.yaml"
    edited = path.read_text().replace("  lr: 0.0002", "  lr: 5.0e-05")
    path.write_text(edited)
    assert main(["profile", "embedded", "distill.batch=0"]) == 2
    assert path.read_text() == edited
    assert [found.name for found in repository.glob("params.yaml*")] == ["params.yaml"]


def test_a_subfolder_gets_no_parameters_of_its_own(repository: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    below = repository / "data/prompts"
    monkeypatch.chdir(below)
    assert main(["profile", "smoke"]) == 0
    assert (repository / "params.yaml").read_text().startswith("# Written by `python -m filmstill profile smoke`")
    assert [path.name for path in repository.rglob("params.yaml")] == ["params.yaml"]
    (repository / "dvc.yaml").unlink()
    monkeypatch.chdir(below)
    capsys.readouterr()
    assert main(["profile", "smoke"]) == 2
    line = f"filmstill: {below}: contains no dvc.yaml; run this from the repository's root\n"
    assert capsys.readouterr().err == line and not (below / "params.yaml").exists()
