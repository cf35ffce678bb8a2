"""pretrain/params.yaml: what the released teacher of the natural world is trained with."""

import shutil
from pathlib import Path

import pytest

from filmstill.errors import FilmstillError
from filmstill.params.pretrain import FILE, check_pretrain
from filmstill.params.profile import compose
from repository import ROOT


@pytest.fixture
def parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the file, in the current folder."""
    monkeypatch.chdir(tmp_path)
    FILE.parent.mkdir()
    shutil.copy(ROOT / FILE, FILE)
    return FILE


def test_the_profile_natural_has_the_world_that_its_teacher_is_trained_in(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    natural, trained = compose("natural", []), check_pretrain()
    assert not natural.world.loops and natural.ode_init.clips == 1
    assert (natural.world, natural.model, natural.schedule) == (trained.world, trained.model, trained.schedule)


@pytest.mark.parametrize(
    ("line", "to", "message"),
    [
        ("  steps: 5500", "  steps: 0", "teacher.steps: is 0, allowed: an integer in [1, 100000000]"),
        ("  device: cpu", "  device: cuda", "compute.device: is 'cuda', allowed: cpu where world.name is symbols"),
        ("  text_len: 16", "  text_len: 8", "model.text_len: is 8, allowed: at least 16"),
        ("  real_score: data/released/none", "  real_score: x", "teacher.real_score: is 'x', allowed: data/released"),
        ("  name: symbols", "  name: open", "world.name: is 'open', allowed: symbols"),
        ("seed: 0", "seed: -1", "seed: is -1, allowed: an integer in [0, 2**63)"),
        ("seed: 0", "", "'seed' is missing; `git checkout pretrain/params.yaml` restores every value"),
        ("seed: 0", "seeds: 0\nseed: 0", "seeds: no such key"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_file(parameters: Path, line: str, to: str, message: str):
    text = parameters.read_text()
    assert text.count(line) == 1
    parameters.write_text(text.replace(line, to))
    with pytest.raises(FilmstillError) as caught:
        check_pretrain()
    assert str(caught.value).startswith(f"pretrain/params.yaml: {message}") and "\n" not in str(caught.value)
