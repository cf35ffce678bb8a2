"""Bad sources and targets that cannot be written are refused in one line and leave nothing behind."""

import json
import pickle
import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from checkpoints import NAMES, left, weights, where
from filmstill.command_line import given_path
from filmstill.errors import FilmstillError
from filmstill.formats.convert import SUFFIXES, convert
from filmstill.formats.layouts import read_network
from filmstill.models.dit import DiTConfig, VideoDiT
from filmstill.models.weights import save_model
from filmstill.runtime.tensor_files import save_tensors
from goldens import TINY


@pytest.fixture
def student(tmp_path: Path) -> Path:
    path = tmp_path / "student.safetensors"
    save_model(path, weights(mixed=True), TINY, {})
    return path


def with_faults(tensors: dict[str, Tensor], kind: str, count: int) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors with `count` of them missing, unknown or misshaped, and the names as a message lists them."""
    victims = sorted(name for name in tensors if name.startswith("blocks."))[:count]
    if kind == "missing":
        return {name: tensor for name, tensor in tensors.items() if name not in victims}, victims
    if kind == "unknown":
        names = sorted(f"{name}.lora" for name in victims)
        return {**tensors, **{name: torch.zeros(2) for name in names}}, names
    wrong = {name: torch.zeros(3, *tensors[name].shape) for name in victims}
    listed = [f"{name} {list(wrong[name].shape)} for {list(tensors[name].shape)}" for name in victims]
    return {**tensors, **wrong}, listed


@pytest.mark.parametrize("to", SUFFIXES)
@pytest.mark.parametrize("kind", ["missing", "unknown", "misshaped"])
@pytest.mark.parametrize("count", [1, 12])
def test_names_and_shapes_that_are_wrong_are_listed_and_nothing_is_written(tmp_path, to, kind, count):
    tensors, names = with_faults(weights(), kind, count)
    source, target = tmp_path / "source.pt", where(tmp_path, to)
    torch.save({"generator": {f"model.{name}": tensor for name, tensor in tensors.items()}}, source)
    with pytest.raises(FilmstillError) as caught:
        convert(source, target, to, heads=4)
    more = ", …" if count > 10 else ""
    message = f"source.pt: not the weights of this network: {count} {kind}: {', '.join(names[:10])}{more}"
    assert str(caught.value).endswith(message)
    assert left(tmp_path) == ["source.pt"]


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("blocks.1.")])
def test_any_one_tensor_that_is_missing_or_misshaped_is_named_alone(tmp_path, name):
    """This includes the tensors from which sizes are inferred."""
    tensors = weights()
    tensors[name] = tensors[name][None]
    torch.save(tensors, tmp_path / "a.pt")
    with pytest.raises(FilmstillError, match=f"network: 1 misshaped: {name} "):
        read_network(tmp_path / "a.pt", heads=4)
    del tensors[name]
    torch.save(tensors, tmp_path / "a.pt")
    with pytest.raises(FilmstillError, match=f"network: 1 missing: {name}$"):
        read_network(tmp_path / "a.pt", heads=4)


def test_two_names_for_one_tensor_are_refused(tmp_path):
    torch.save({**weights(), "model.head.head.bias": torch.zeros(16)}, tmp_path / "a.pt")
    with pytest.raises(FilmstillError, match=r"head\.head\.bias and model\.head\.head\.bias are both head\.head\.bias"):
        read_network(tmp_path / "a.pt", heads=4)


def test_a_dtype_that_no_network_is_kept_in_is_refused(tmp_path):
    torch.save({**weights(), "head.head.bias": torch.zeros(16, dtype=torch.int64)}, tmp_path / "a.pt")
    with pytest.raises(FilmstillError, match=r"head\.head\.bias: is torch\.int64, allowed: F64, F32, BF16, F16"):
        read_network(tmp_path / "a.pt", heads=4)


@pytest.mark.parametrize("to", ["wan", "diffusers"])
def test_tensors_of_other_sizes_than_their_config_are_refused(tmp_path, to):
    """A large network's weights file is in a small network's folder."""
    large = replace(TINY, dim=96, num_layers=3, num_heads=8)
    for name, config in (("small", TINY), ("large", large)):
        save_model(tmp_path / f"{name}.safetensors", weights(config), config, {})
        convert(tmp_path / f"{name}.safetensors", tmp_path / name, to)
    (tmp_path / "large/diffusion_pytorch_model.safetensors").replace(
        tmp_path / "small/diffusion_pytorch_model.safetensors"
    )
    for source in (tmp_path / "small", tmp_path / "small/diffusion_pytorch_model.safetensors"):
        with pytest.raises(FilmstillError) as caught:
            convert(source, tmp_path / "out.safetensors", "filmstill")
        message = (
            f"small/config.json: contradicts the tensors of {source}: dim 48 (tensors: 96), num_layers 2 (tensors: 3)"
        )
        assert str(caught.value).endswith(message)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_filmstill_file_whose_header_says_other_sizes_is_refused(tmp_path):
    save_model(tmp_path / "a.safetensors", weights(), replace(TINY, ffn_dim=192), {})
    with pytest.raises(FilmstillError, match=r"a\.safetensors: contradicts .* ffn_dim 192 \(tensors: 96\)$"):
        read_network(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"_class_name": "WanVACETransformer3DModel"},
            "_class_name: is 'WanVACETransformer3DModel', allowed: WanModel, ",
        ),
        ({"eps": 1e-5}, "eps: is 1e-05, allowed: 1e-06"),
        ({"dim": "48"}, "dim: is '48', allowed: a positive integer"),
        ({"num_heads": 5}, "num_heads: is 5, allowed: a divisor of dim 48 that leaves each head an even number"),
    ],
)
def test_a_config_of_another_network_is_refused(student, tmp_path, change, message):
    convert(student, tmp_path / "wan", "wan")
    config = tmp_path / "wan" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(FilmstillError) as caught:
        read_network(tmp_path / "wan")
    assert message in str(caught.value)


def test_heads_are_asked_for_where_no_file_says_them(student, tmp_path):
    convert(student, tmp_path / "a.pt", "self-forcing")
    with pytest.raises(FilmstillError, match=r"how many attention heads share its dim of 48; give --heads$"):
        read_network(tmp_path / "a.pt")
    assert read_network(tmp_path / "a.pt", heads=8).config == replace(TINY, num_heads=8)
    with pytest.raises(FilmstillError, match="--heads: is 8, allowed: 4, the num_heads of its config"):
        read_network(student, heads=8)
    for heads in (0, -4, 5, 16):  # 16: three channels per head, but rotary embedding needs pairs
        with pytest.raises(FilmstillError, match=f"num_heads: is {heads}, allowed: a divisor of dim 48 that leaves"):
            read_network(tmp_path / "a.pt", heads=heads)


@pytest.mark.parametrize(("dim", "heads"), [(1536, 12), (5120, 40)])
def test_released_sizes_need_no_heads(tmp_path, dim, heads):
    """One layer of the released width, every tensor expanded from one number: 5 MB instead of gigabytes."""
    config = DiTConfig(dim, 8, heads, 1, 8, 8, 4)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in VideoDiT(config).state_dict().items()}
    torch.save({name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}, tmp_path / "a.pt")
    assert read_network(tmp_path / "a.pt").config == config


@pytest.mark.parametrize("to", ["self-forcing", "filmstill"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99, 0.9999])
def test_truncated_files_are_refused(student, tmp_path, to, kept):
    whole, cut = where(tmp_path, to), where(tmp_path / "cut", to)
    convert(student, whole, to)
    cut.parent.mkdir()
    size = whole.stat().st_size
    cut.write_bytes(whole.read_bytes()[: int(kept * size)])
    message = rf"is truncated: {int(kept * size)} of {size} bytes are there"
    if to == "self-forcing":
        message = rf"is truncated: a file of torch.save without its end, {int(kept * size)} bytes are there"
    elif kept == 0.01:
        message = rf"is truncated: its header alone takes \d+ bytes, {int(kept * size)} are there"
    with pytest.raises(FilmstillError, match=message if kept else r"is empty \(0 bytes\)") as caught:
        convert(cut, tmp_path / "out", "wan", heads=4)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_flipped_bit_in_a_filmstill_file_is_found(student, tmp_path):
    content = bytearray(student.read_bytes())
    content[-5] ^= 4
    student.write_bytes(content)
    with pytest.raises(FilmstillError, match=r"student\.safetensors: damaged: its content does not have the SHA-256"):
        convert(student, tmp_path / "out", "diffusers")
    assert left(tmp_path) == ["student.safetensors"]


class Payload:
    """An object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_is_refused_and_does_not_run(tmp_path, zipped):
    source, proof = tmp_path / "model.pt", tmp_path / "it_ran"
    torch.save({"generator": weights(), "hook": Payload(proof)}, source, _use_new_zipfile_serialization=zipped)
    with pytest.raises(FilmstillError, match=r"holds more than plain tensors; it was not executed") as caught:
        convert(source, tmp_path / "out", "wan", heads=4)
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == ["model.pt"]
    source.write_bytes(pickle.dumps(Payload(proof), protocol=2))
    with pytest.raises(FilmstillError):
        read_network(source)
    assert not proof.exists()


def test_sources_that_are_no_transformer(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        FilmstillError, match=r"empty: expected one weights file or a \*\.index\.json, found 0 \(none\)"
    ):
        read_network(tmp_path / "empty")
    with pytest.raises(FilmstillError, match="absent: no such file or folder"):
        read_network(tmp_path / "absent")
    save_tensors(tmp_path / "codec.safetensors", {"mean": torch.zeros(16), "deviation": torch.ones(())})
    with pytest.raises(FilmstillError, match=r"not a Wan transformer; it contains 2 tensors: deviation, mean"):
        read_network(tmp_path / "codec.safetensors")
    torch.save({"step": 3}, tmp_path / "step.pt")
    with pytest.raises(FilmstillError, match=r"not a Wan transformer; it contains 0 tensors: none"):
        read_network(tmp_path / "step.pt")
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"filmstill": "[]"})
    with pytest.raises(FilmstillError, match=r"damaged: its header is not as filmstill writes it"):
        read_network(tmp_path / "a.safetensors")


def test_targets_that_are_refused_stay_as_they_were(student, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "mine.pt").write_text("mine")
    for name, to, message in (
        ("full", "diffusers", "full: exists, and nothing is overwritten"),
        ("mine.pt", "self-forcing", "exists, and nothing is overwritten"),
        ("student", "filmstill", r"filmstill is one file, whose name ends in \.safetensors"),
        ("student.bin", "self-forcing", r"self-forcing is one file, whose name ends in \.pt or \.pth"),
        ("student.pt", "wan", r"wan is a folder, whose name does not end in \.pt"),
    ):
        with pytest.raises(FilmstillError, match=message):
            convert(student, tmp_path / name, to)
    assert left(tmp_path) == ["full", "mine.pt", "student.safetensors"]
    assert (tmp_path / "mine.pt").read_text() == (tmp_path / "full" / "mine").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    convert(student, tmp_path / "empty", "diffusers")
    assert left(tmp_path / "empty") == ["config.json", "diffusion_pytorch_model.safetensors"]


@pytest.mark.parametrize(
    ("name", "to", "message"),
    [
        ("a.pt", "self-forcing", "a.pt: is a folder, allowed: the name of a file; choose another name"),
        ("file", "wan", "file: is a file, allowed: the name of a folder; choose another name"),
        ("file/a.pt", "self-forcing", r"file/a.pt: cannot be written: .*/file is a file, allowed: a folder"),
        ("file/a/b", "diffusers", r"file/a/b: cannot be written: .*/file is a file, allowed: a folder"),
        ("source", "wan", "source: exists, and nothing is overwritten"),
        ("source/out", "diffusers", "source/out: is inside .*/source, which is read; name a target outside of it"),
        ("source/deep/a.pt", "self-forcing", "a.pt: is inside .*/source, which is read"),
        ("x" * 254 + ".pt", "self-forcing", r"\.pt: cannot be written \(File name too long\)"),
    ],
)
def test_targets_are_tried_before_the_source_is_read(tmp_path, name, to, message):
    (tmp_path / "a.pt").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "unreadable.pt").write_text("if it were read, it would be refused")
    with pytest.raises(FilmstillError, match=message):
        convert(tmp_path / "source", tmp_path / name, to)
    assert left(tmp_path) == ["a.pt", "file", "source"]
    assert left(tmp_path / "source") == ["unreadable.pt"]


@pytest.mark.parametrize("to", SUFFIXES)
def test_a_target_with_the_longest_name_and_one_in_the_home_folder(student, tmp_path, monkeypatch, to):
    suffix = (*SUFFIXES[to], "")[0]
    target = tmp_path / ("x" * (255 - len(suffix)) + suffix)
    convert(student, target, to)
    assert left(tmp_path) == sorted([student.name, target.name])
    monkeypatch.setenv("HOME", str(tmp_path))
    convert(given_path("~/student.safetensors"), given_path(f"~/home{suffix}"), to)
    assert (tmp_path / f"home{suffix}").exists()


@pytest.mark.parametrize("to", SUFFIXES)
def test_a_write_that_fails_leaves_nothing(student, tmp_path, to):
    """The system refuses bytes beyond a file size limit, as it would on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(FilmstillError, match=r"cannot be written \(File too large\)"):
            convert(student, where(tmp_path, to), to)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert left(tmp_path) == ["student.safetensors"]
