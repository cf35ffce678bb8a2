"""Released models as the teacher stage imports them: both layouts, experts, and refusals in one line."""

import json
import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from filmstill.errors import FilmstillError
from filmstill.formats.release import PUBLISHED_SHA256, find_networks
from filmstill.models.dit import DiTConfig
from filmstill.models.experts import Experts
from filmstill.models.load import load_real_score
from filmstill.models.weights import load_model
from filmstill.params.compute import Compute
from filmstill.params.load import Values
from filmstill.params.profile import check, compose
from filmstill.runtime.compute import prepare
from filmstill.runtime.files import sha256_of
from filmstill.work.required_files import check_releases, check_required_files
from goldens import assert_close
from mini_wan import CONFIG, write_mini, write_network
from repository import ROOT
from tiny_umt5 import WAN_FILE
from tiny_vae import write_vae


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/released with the miniature in every layout; shared by all tests, so not to be changed."""
    folder = tmp_path_factory.mktemp("released")
    for layout in ("wan", "diffusers", "experts"):
        write_mini(folder / layout, layout)
    return folder


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, released: Path):
    """A function that enters a repository whose params.yaml is wan-mini with overrides; returns the release's copy."""

    def go(*overrides: str, layout: str = "wan") -> Path:
        folder = tmp_path / "data/released" / layout
        if not folder.exists():
            shutil.copytree(released / layout, folder)
        monkeypatch.chdir(ROOT)
        params = compose("wan-mini", [f"teacher.released=data/released/{layout}", *overrides])
        (tmp_path / "params.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(params)))
        monkeypatch.chdir(tmp_path)
        return Path("data/released") / layout

    return go


def import_teacher(out: Path) -> None:
    """Import a release as the teacher stage does, from params.yaml."""
    params = Values.read()
    compute = params.section(Compute, "compute")
    runpy.run_path(str(ROOT / "stages/teacher.py"))["import_released"](out, params, compute)


def refused(folder: Path, by_check: bool = True) -> str:
    """The message of a refused import, which is one line and wrote nothing.

    by_check: `check` refuses the same, since no weights and no digests show it.
    """
    with pytest.raises(FilmstillError) as caught:
        import_teacher(Path("out"))
    line = str(caught.value)
    assert "\n" not in line
    assert not Path("out/teacher.safetensors").exists()
    if by_check:
        assert not Path("out").exists()
        with pytest.raises(FilmstillError) as checked:
            check_releases(check())
        assert str(checked.value) == line
    else:
        check_releases(check())
    return line


def test_both_layouts_give_the_same_teacher(at):
    networks = []
    for layout in ("wan", "diffusers"):
        at(layout=layout)
        import_teacher(Path(layout))
        model, facts = load_model(Path(layout) / "teacher.safetensors", CONFIG)
        networks.append(model.state_dict())
        assert all(len(file["sha256"]) == 64 for file in facts["released"].values())
        assert (Path(layout) / "sheets/imported.png").is_file()
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])
    codecs = [Path(layout, "codec.safetensors").read_bytes() for layout in ("wan", "diffusers")]
    assert len(codecs[0]) > len(codecs[1])  # only Wan's folder contains TAEHV's weights


@torch.no_grad()
def test_two_experts_share_the_noise(at, released: Path):
    """Wan2.2: per sample, the high-noise expert answers from the boundary timestep on, the other one below it."""
    at("teacher.real_score=data/released/experts", layout="wan")
    shutil.copytree(released / "experts", "data/released/experts")
    import_teacher(Path("out"))
    both = load_real_score(Compute(), Path("out/real_score"))
    assert isinstance(both, Experts) and both.boundary == 875
    facts = Path("out/real_score/experts.json")
    for wrong, line in (
        ("{}", "files: is None, allowed: names of at most two"),
        ('{"files": ["high.safetensors", "low.safetensors"]}', "boundary: is None, allowed: the experts' sigma"),
    ):
        facts.write_text(wrong)
        with pytest.raises(FilmstillError, match=f"experts.json: {line}"):
            load_real_score(Compute(), facts.parent)
    high, low = (load_model(Path("out/real_score") / name)[0] for name in ("high.safetensors", "low.safetensors"))
    dice = torch.Generator().manual_seed(0)
    x, text = torch.randn(4, 2, 16, 4, 4, generator=dice), torch.randn(4, 24, 32, generator=dice)
    t = torch.tensor([1000.0, 875.0, 874.9, 20.0])
    alone = [high(x, t, high.read_text(text))[:2], low(x, t, low.read_text(text))[2:]]
    assert_close(both(x, t, both.read_text(text)), torch.cat(alone), 1e-5)
    assert_close(both(x[3:], t[3:], both.read_text(text[3:])), alone[1][1:], 1e-5)


def test_experts_that_do_not_fit_each_other_or_their_boundary_are_refused(at):
    folder = at("teacher.real_score=data/released/pair", "teacher.boundary=0.9", layout="diffusers")
    pair = folder.parent / "pair"
    networks = {"transformer": CONFIG, "transformer_2": replace(CONFIG, ffn_dim=2 * CONFIG.ffn_dim)}
    for name, config in networks.items():
        write_network(pair / name, "diffusers", 1, config)
    listed = {name: ["diffusers", "WanTransformer3DModel"] for name in networks}
    (pair / "model_index.json").write_text(json.dumps({**listed, "boundary_ratio": 0.875}))
    assert refused(folder) == "teacher.real_score: data/released/pair holds two experts of different sizes"
    shutil.rmtree(pair / "transformer_2")
    shutil.copytree(pair / "transformer", pair / "transformer_2")
    assert refused(folder) == (
        "teacher.boundary: is 0.9, but data/released/pair says that its experts meet at 0.875; set teacher.boundary to "
        "0.875"
    )
    at("teacher.real_score=data/released/pair", layout="diffusers")
    check_releases(check())


def test_a_larger_real_score_may_have_other_sizes_but_not_other_latents(at):
    at("teacher.real_score=data/released/large")
    large = DiTConfig(dim=64, ffn_dim=128, num_heads=4, num_layers=3, freq_dim=32, text_dim=32, in_channels=16)
    write_network(Path("data/released/large"), "wan", seed=7, config=large)
    import_teacher(Path("out"))
    assert load_real_score(Compute(), Path("out/real_score")).config == large
    shutil.rmtree("out")
    shutil.rmtree("data/released/large")
    write_network(Path("data/released/large"), "wan", seed=7, config=DiTConfig(64, 128, 4, 3, 32, 40, 16))
    assert "text of 40, the student 16 and 32" in refused(Path("data/released/large"))


@pytest.mark.parametrize(
    "missing", ["Wan2.1_VAE.pth", WAN_FILE, "google", "config.json", "diffusion_pytorch_model.safetensors"]
)
def test_what_is_missing_is_named_with_its_download(at, missing: str):
    folder = at()
    path = folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    line = refused(folder)
    assert missing in line and f"hf download Wan-AI/wan --local-dir {folder}" in line


def test_no_folder_at_all(at):
    at()
    shutil.rmtree("data/released/wan")
    assert "data/released/wan: no such folder; download it: hf download Wan-AI/wan" in refused(Path())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Wan2.1_VAE.pth", "is truncated: a file of torch.save without its end, {half} bytes are there"),
        (WAN_FILE, "is truncated: a file of torch.save without its end, {half} bytes are there"),
        ("diffusion_pytorch_model.safetensors", "is truncated: {half} of {size} bytes are there"),
    ],
)
def test_a_truncated_file(at, name: str, message: str):
    path = at() / name
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2])
    line = refused(path)
    assert name in line and message.format(half=size // 2, size=size) in line


def test_a_file_of_a_released_ones_size_and_other_bytes(at, monkeypatch: pytest.MonkeyPatch):
    path = at() / "Wan2.1_VAE.pth"
    size = path.stat().st_size
    monkeypatch.setitem(PUBLISHED_SHA256, (path.name, size), sha256_of(path))
    import_teacher(Path("whole"))
    with path.open("r+b") as file:
        file.seek(size // 2)
        byte = file.read(1)
        file.seek(size // 2)
        file.write(bytes([byte[0] ^ 1]))
    assert "Wan2.1_VAE.pth: damaged: SHA-256 is" in refused(path, by_check=False)


def test_a_target_that_cannot_be_written_is_found_before_the_release_is_read(at):
    shutil.rmtree(at())
    Path("file").touch()
    with pytest.raises(FilmstillError, match=r"file/out/teacher\.safetensors: cannot be written: .*/file is a file"):
        import_teacher(Path("file/out"))


class Evil:
    def __reduce__(self):
        return (Path("executed").touch, ())


@pytest.mark.parametrize("name", ["Wan2.1_VAE.pth", WAN_FILE])
def test_a_pickle_of_more_than_tensors_is_never_executed(at, name: str):
    path = at() / name
    torch.save({"weights": Evil()}, path)
    assert "more than plain tensors; it was not executed" in refused(path)
    assert not Path("executed").exists()


def test_sizes_that_are_not_the_profiles(at):
    folder = at("model.num_layers=3", "model.ffn_dim=128")
    line = refused(folder)
    assert "ffn_dim 96 (params.yaml: 128), num_layers 2 (params.yaml: 3)" in line


def test_a_vae_of_other_channels(at):
    folder = at()
    write_vae(folder / "Wan2.1_VAE.pth", "wan", 1, z_dim=8, latents_mean=[0.0] * 8, latents_std=[1.0] * 8)
    line = refused(folder)
    assert "Wan2.1_VAE.pth" in line and "8" in line and "16" in line


def test_a_vae_without_its_config(at):
    folder = at(layout="diffusers")
    check_releases(check())
    (folder / "vae/config.json").unlink()
    line = refused(folder)
    assert line.startswith(f"{folder}/vae/config.json: missing; download it: hf download Wan-AI/diffusers --local-dir")
    with pytest.raises(FilmstillError, match=r"vae/config\.json: missing; download it"):
        check_required_files(check())  # `profile` names it, too


def test_nothing_is_hashed_before_all_headers_are_checked(at, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("filmstill.formats.import_release.identities", lambda *_: pytest.fail("hashed"))
    at("model.num_layers=3")
    assert "num_layers 2 (params.yaml: 3)" in refused(Path())
    shutil.rmtree("data/released/wan")
    write_vae(at() / "Wan2.1_VAE.pth", "wan", 1, z_dim=8, latents_mean=[0.0] * 8, latents_std=[1.0] * 8)
    assert "a VAE of z_dim 8" in refused(Path())


def test_an_encoder_of_other_width(at):
    folder = at("model.text_dim=48")
    assert "text_dim 32 (params.yaml: 48)" in refused(folder)
    write_network(Path("wider"), "wan", seed=0, config=replace(CONFIG, text_dim=48))
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        shutil.copy(Path("wider") / name, folder / name)
    assert "encodes to 32 channels, the network takes model.text_dim 48" in refused(folder)


def test_what_is_missing_is_said_before_a_run(at, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    mini, large = compose("wan-mini", ["teacher.released=data/released/wan"]), compose("wan-14b-teacher", [])
    at()
    with pytest.raises(FilmstillError, match=r"prompts\.raw: data/prompts/raw\.csv: no such file$"):
        check_required_files(mini)
    Path("data/prompts").mkdir()
    Path("data/prompts/raw.csv").touch()
    check_required_files(mini)
    large.teacher.released = mini.teacher.released
    with pytest.raises(FilmstillError, match="14B: no such folder; download it: hf download Wan-AI/Wan2"):
        check_required_files(large)
    large.teacher.real_score = mini.teacher.released
    with pytest.raises(FilmstillError, match=r"hf download gdhe17/Self-Forcing vidprom_filtered_extended\.txt"):
        check_required_files(large)


def test_a_download_that_broke_off_is_found_before_a_run(at):
    folder = at()
    whole = folder / "diffusion_pytorch_model.safetensors"
    index = {"weight_map": {"a": "diffusion_pytorch_model-00001-of-00002.safetensors", "b": whole.name}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FilmstillError, match="missing; download it: hf download"):
        find_networks(folder)


def test_experts_are_no_teacher_to_start_from(at):
    folder = at(layout="experts")  # Wan2.2's folder holds text encoder and VAE as well
    shutil.copytree(at(layout="wan"), folder, dirs_exist_ok=True)
    at(layout="experts")
    assert "give the experts as teacher.real_score" in refused(Path())


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FilmstillError, match=r"compute\.device: is 'cuda', but torch sees no CUDA device here"):
        prepare("cuda", 2)
