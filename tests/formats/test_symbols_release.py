"""A released teacher of the symbols world: written by pretrain/teacher.py, imported by the stage, or refused."""

import json
import runpy
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from filmstill.diffusion.schedule import FlowSchedule
from filmstill.errors import FilmstillError
from filmstill.formats.release import RECORD, SymbolsRelease, identities
from filmstill.models.codec import DctCodec
from filmstill.models.load import load_codec, load_encoder, load_real_score
from filmstill.models.text import HashedWords
from filmstill.models.weights import config_of, load_model
from filmstill.params.compute import Compute
from filmstill.params.load import Values
from filmstill.params.profile import check, compose
from filmstill.params.teacher import NOTHING
from filmstill.params.text import Text
from filmstill.runtime.files import sha256_of
from filmstill.training.teacher import EmbeddedTeacher, make_teacher, new_model
from filmstill.work.required_files import check_releases, check_required_files
from mini_wan import write_mini
from repository import ROOT

TINY = ["model.dim=48", "model.ffn_dim=96", "model.num_layers=2"]
FOLDER = Path("data/released/symbols-natural")
NETWORK = "diffusion_pytorch_model.safetensors"
FILES = ["config.json", NETWORK, "codec.safetensors", "text/encoder.json"]


def write_params(*overrides: str) -> None:
    """The profile natural with a tiny network, as params.yaml of the current folder."""
    there = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        params = compose("natural", [*TINY, *overrides])
    assert Path.cwd() == there
    Path("params.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(params)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EmbeddedTeacher]:
    """A release of an untrained network, and that network; tests must not change them."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_params()
        params = check()
        sizes = params.model
        codec = DctCodec(torch.linspace(-1, 1, 16), torch.tensor(0.5))
        teacher = EmbeddedTeacher(
            new_model(config_of(sizes), 0),
            codec,
            HashedWords(sizes.text_len, sizes.text_dim),
            params.world,
            FlowSchedule(params.schedule.shift),
            0,
        )
        write_release = runpy.run_path(str(ROOT / "pretrain/teacher.py"))["write_release"]
        write_release(FOLDER, teacher, Values.read(), {8: 0.25})
    return folder / FOLDER, teacher


@pytest.fixture
def release(made: tuple[Path, EmbeddedTeacher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the release in a folder of its own, whose params.yaml names it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made[0], FOLDER)
    write_params()
    return FOLDER


def import_teacher(out: Path) -> None:
    """Import the release as the teacher stage does, from params.yaml."""
    params = Values.read()
    runpy.run_path(str(ROOT / "stages/teacher.py"))["import_embedded"](out, params, params.section(Compute, "compute"))


def refused() -> str:
    """The message of a refused import, which is one line and wrote nothing; `check` refuses with the same."""
    with pytest.raises(FilmstillError) as caught:
        import_teacher(Path("out"))
    line = str(caught.value)
    assert "\n" not in line and not Path("out").exists()
    with pytest.raises(FilmstillError) as checked:
        check_releases(check())
    assert str(checked.value) == line
    return line


def write_digests(folder: Path) -> None:
    """Record the files that are there."""
    record = json.loads((folder / RECORD).read_text())
    record["files"] = identities(folder, [folder / name for name in FILES])
    (folder / RECORD).write_text(json.dumps(record))


def test_an_import_writes_what_a_training_does(release: Path, made: tuple[Path, EmbeddedTeacher]):
    check_releases(check())
    import_teacher(Path("out"))
    graph = OmegaConf.load(ROOT / "dvc.yaml").stages.teacher
    listed = [*graph.outs, *(next(iter(plot)) for plot in graph.plots)]
    assert all(Path("out", Path(path).relative_to("data/teacher")).exists() for path in listed)
    model, facts = load_model(Path("out/teacher.safetensors"), config_of(check().model))
    expected = made[1].network.state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    digests = {name: sha256_of(release / name) for name in (*FILES, RECORD)}
    assert facts["shift"] == 5.0 and {name: file["sha256"] for name, file in facts["released"].items()} == digests
    assert Path("out/codec.safetensors").read_bytes() == (release / "codec.safetensors").read_bytes()
    assert torch.equal(load_codec(Compute(), Path("out/codec.safetensors")).mean, made[1].codec.mean)
    assert load_encoder(Text(), Compute(), Path("out/text")).text_len == 16
    assert load_real_score(Compute(), Path("out/real_score")) is None
    assert list(Path("out/curves").iterdir()) == [] and Path("out/sheets/imported.png").stat().st_size > 1000


def test_in_bfloat16_the_imported_weights_stay_whole(release: Path, made: tuple[Path, EmbeddedTeacher]):
    write_params("compute.precision=bfloat16")
    import_teacher(Path("out"))
    weights, expected = load_model(Path("out/teacher.safetensors"))[0].state_dict(), made[1].network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights.items())


def test_the_card_has_scores_and_parameters_and_is_no_part_of_the_import(release: Path):
    card = (release / "README.md").read_text()
    assert "0.250 with 8 steps" in card and "any_phase: true" in card
    (release / "README.md").unlink()
    check_releases(check())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["world.period=12"], "world.period: is 12, allowed: 20, which data/released/symbols-natural was trained with"),
        (["world.amplitude=7"], "world.amplitude: is 7.0, allowed: 4.0, which data/released/symbols-natural was"),
        (["world.frames=24"], "world.frames: is 24, allowed: 12, which data/released/symbols-natural was"),
        (["world.any_phase=false", "world.period=12"], "world.period: is 12, allowed: 20"),
        (["schedule.shift=3"], "schedule.shift: is 3.0, allowed: 5.0, which data/released/symbols-natural was"),
        (["model.dim=64"], "data/released/symbols-natural: a network of other sizes: dim 48 (params.yaml: 64)"),
        (
            ["model.text_dim=32"],
            "data/released/symbols-natural: a network of other sizes: text_dim 64 (params.yaml: 32)",
        ),
        (["model.text_len=24"], "model.text_len: is 24, allowed: 16, that of data/released/symbols-natural/text"),
    ],
)
def test_another_world_schedule_or_size_is_refused(release: Path, overrides: list[str], message: str):
    write_params(*overrides)
    check_required_files_of_release()
    assert refused().startswith(message)


def check_required_files_of_release() -> None:
    """`check_required_files` finds the release whole, and stops at the prompts, which are not here."""
    with pytest.raises(FilmstillError, match=r"^prompts\.raw"):
        check_required_files(check())


@pytest.mark.parametrize("name", [*FILES, RECORD])
def test_a_missing_file_is_named_with_the_way_to_get_it(release: Path, name: str):
    (release / name).unlink()
    line = refused()
    assert line.startswith(f"{release / name}: missing, allowed for teacher.released where world.name is symbols: ")
    assert "`git checkout data/released/symbols-natural`" in line and "`make pretrain`" in line
    with pytest.raises(FilmstillError) as caught:
        check_required_files(check())  # `profile` names it, too
    assert str(caught.value) == line


def test_a_pretraining_begins_with_the_weights_of_a_release(release: Path, made: tuple[Path, EmbeddedTeacher]):
    """In another world than the one that the release was trained in."""
    first_weights = runpy.run_path(str(ROOT / "pretrain/teacher.py"))["first_weights"]
    write_params("seed=1", "world.amplitude=5", "teacher.steps=1", "teacher.ema=0", "teacher.warmup=1000000")
    values, trained = Values.read(), made[1].network.state_dict()
    begun = make_teacher(Path("work"), values, Compute(), first_weights(values)).network.state_dict()
    assert max((begun[name] - tensor).abs().max() for name, tensor in trained.items()) < 1e-4
    write_params(f"teacher.released={NOTHING}")
    assert first_weights(Values.read()) is None
    write_params("model.num_layers=3")
    with pytest.raises(FilmstillError, match=f"^{release}: a network of other sizes: num_layers 2 "):
        first_weights(Values.read())


def test_a_folder_that_is_not_there(release: Path):
    shutil.rmtree(release)
    assert refused().startswith(f"{release}: no such folder; `git checkout {release}` restores it, `make pretrain`")


def test_another_folder_is_not_in_git():
    with pytest.raises(FilmstillError, match=f"no such folder; copy the folder anew .*, or name {FOLDER}$"):
        SymbolsRelease.find(Path("data/released/mine"))


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_found(release: Path, name: str):
    """In config.json and encoder.json a blank, which changes no value."""
    path = release / name
    content = bytearray(path.read_bytes())
    content[-4 if name.endswith(".safetensors") else -1] ^= 1 if name.endswith(".safetensors") else ord("\n") ^ ord(" ")
    path.write_bytes(content)
    assert refused().startswith(f"{path}: damaged: its size and SHA-256 are not those in {RECORD}; `git checkout")


def test_a_truncated_network(release: Path):
    path = release / NETWORK
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:100_000])
    assert refused().startswith(f"{path}: is truncated: 100000 of {size} bytes are there")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("time_embedding.0.bias"), "1 missing: time_embedding.0.bias"),
        (lambda weights: weights.update(extra=torch.zeros(2)), "1 unknown: extra"),
        (
            lambda weights: weights.update({"head.head.bias": torch.zeros(3)}),
            "1 misshaped: head.head.bias [3] for [64]",
        ),
    ],
)
def test_other_tensors_are_refused_whatever_the_digests(release: Path, change, message: str):
    weights = load_file(release / NETWORK)
    change(weights)
    save_file(weights, release / NETWORK)
    write_digests(release)
    assert refused() == f"{release}: not the weights of this network: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged or truncated JSON"),
        ("{}", "world: is None, allowed: a mapping of name, frames"),
        ('{"world": {"period": "x"}}', "world.period: is 'x', allowed: an integer"),
        ('{"world": {"gravity": 1}}', "world.gravity: no such key"),
    ],
)
def test_a_damaged_record_is_named(release: Path, text: str, message: str):
    (release / RECORD).write_text(text)
    assert refused().startswith(f"{release / RECORD}: {message}")


def test_a_record_without_digests_proves_no_file(release: Path):
    record = json.loads((release / RECORD).read_text())
    del record["files"]
    (release / RECORD).write_text(json.dumps(record))
    assert "config.json: damaged: its size and SHA-256 are not those in release.json" in refused()


def test_a_release_of_the_other_world_is_refused(release: Path):
    shutil.rmtree(release)
    write_mini(release)
    assert refused().startswith(
        f"{release / RECORD}: missing, allowed for teacher.released where world.name is symbols"
    )


def test_the_open_world_refuses_a_teacher_of_symbols(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    params = compose("wan-mini", [f"teacher.released={release}"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FilmstillError) as caught:
        check_required_files(params)
    assert str(caught.value).startswith(f"teacher.released: is {release}, a teacher of the symbols world, allowed: ")


def test_a_target_that_cannot_be_written_is_found_first(release: Path):
    shutil.rmtree(release)
    Path("file").touch()
    with pytest.raises(FilmstillError, match=r"file/out/teacher\.safetensors: cannot be written"):
        import_teacher(Path("file/out"))
