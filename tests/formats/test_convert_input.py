"""What is no checkpoint, or cannot be written, is refused in one line and leaves nothing behind."""

import json
import os
import pickle
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import filmstill
from checkpoints import NAMES, left, same, weights, where
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


def spoilt(tensors: dict[str, Tensor], kind: str, count: int) -> tuple[dict[str, Tensor], list[str]]:
    """`count` tensors missing, unknown or misshaped, and how a message names them."""
    victims = sorted(name for name in tensors if name.startswith("blocks."))[:count]
    if kind == "missing":
        return {name: tensor for name, tensor in tensors.items() if name not in victims}, victims
    if kind == "unknown":
        names = sorted(f"{name}.lora" for name in victims)
        return {**tensors, **{name: torch.zeros(2) for name in names}}, names
    wrong = {name: torch.zeros(3, *tensors[name].shape) for name in victims}
    said = [f"{name} {list(wrong[name].shape)} for {list(tensors[name].shape)}" for name in victims]
    return {**tensors, **wrong}, said


@pytest.mark.parametrize("to", SUFFIXES)
@pytest.mark.parametrize("kind", ["missing", "unknown", "misshaped"])
@pytest.mark.parametrize("count", [1, 12])
def test_names_and_shapes_that_are_wrong_are_listed_and_nothing_is_written(tmp_path, to, kind, count):
    tensors, names = spoilt(weights(), kind, count)
    source, target = tmp_path / "source.pt", where(tmp_path, to)
    torch.save({"generator": {f"model.{name}": tensor for name, tensor in tensors.items()}}, source)
    with pytest.raises(FilmstillError) as caught:
        convert(source, target, to, heads=4)
    more = ", …" if count > 10 else ""
    said = f"source.pt: not the weights of this network: {count} {kind}: {', '.join(names[:10])}{more}"
    assert str(caught.value).endswith(said)
    assert left(tmp_path) == ["source.pt"]


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("blocks.1.")])
def test_any_one_tensor_that_is_missing_or_misshaped_is_named_alone(tmp_path, name):
    """Also those that a size is read off."""
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
    with pytest.raises(FilmstillError, match=r"head\.head\.bias is of torch\.int64; one of F64, F32, BF16, F16 is"):
        read_network(tmp_path / "a.pt", heads=4)


@pytest.mark.parametrize("to", ["wan", "diffusers"])
def test_tensors_of_other_sizes_than_their_config_are_refused(tmp_path, to):
    """A large network's file in a small one's folder."""
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
        said = (
            f"small/config.json: contradicts the tensors of {source}: dim 48 (tensors: 96), num_layers 2 (tensors: 3)"
        )
        assert str(caught.value).endswith(said)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_filmstill_file_whose_header_says_other_sizes_is_refused(tmp_path):
    save_model(tmp_path / "a.safetensors", weights(), replace(TINY, ffn_dim=192), {})
    with pytest.raises(FilmstillError, match=r"a\.safetensors: contradicts .* ffn_dim 192 \(tensors: 96\)$"):
        read_network(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_class_name": "WanVACETransformer3DModel"}, "_class_name 'WanVACETransformer3DModel'; one of WanModel, "),
        ({"eps": 1e-5}, "eps 1e-05; 1e-06 is needed"),
        ({"dim": "48"}, "dim '48'; a positive whole number is needed"),
        ({"num_heads": 5}, "5 heads; a number that cuts dim 48 into even pieces is needed"),
    ],
)
def test_a_config_of_another_network_is_refused(student, tmp_path, change, said):
    convert(student, tmp_path / "wan", "wan")
    config = tmp_path / "wan" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(FilmstillError) as caught:
        read_network(tmp_path / "wan")
    assert said in str(caught.value)


def test_heads_are_asked_for_where_no_file_says_them(student, tmp_path):
    convert(student, tmp_path / "a.pt", "self-forcing")
    with pytest.raises(FilmstillError, match=r"how many attention heads share its dim of 48; give --heads$"):
        read_network(tmp_path / "a.pt")
    assert read_network(tmp_path / "a.pt", heads=8).config == replace(TINY, num_heads=8)
    with pytest.raises(FilmstillError, match="--heads 8, but its config says 4"):
        read_network(student, heads=8)
    for heads in (0, -4, 5, 16):  # 16: three channels each, which rotary pairs cannot be
        with pytest.raises(FilmstillError, match=f"{heads} heads; a number that cuts dim 48 into even pieces"):
            read_network(tmp_path / "a.pt", heads=heads)


@pytest.mark.parametrize(("dim", "heads"), [(1536, 12), (5120, 40)])
def test_released_sizes_need_no_heads(tmp_path, dim, heads):
    """One layer of the real width, made of one number each: 5 MB instead of gigabytes."""
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
    cut.write_bytes(whole.read_bytes()[: int(kept * whole.stat().st_size)])
    with pytest.raises(FilmstillError, match=r"truncated or of another kind") as caught:
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
    """Unpickled, it would create a file."""

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
    with pytest.raises(FilmstillError, match=r"empty: holds 0 files of weights \(none\)"):
        read_network(tmp_path / "empty")
    with pytest.raises(FilmstillError, match="absent: no such file or folder"):
        read_network(tmp_path / "absent")
    save_tensors(tmp_path / "codec.safetensors", {"mean": torch.zeros(16), "deviation": torch.ones(())})
    with pytest.raises(FilmstillError, match=r"not a Wan transformer; it holds 2 tensors: deviation, mean"):
        read_network(tmp_path / "codec.safetensors")
    torch.save({"step": 3}, tmp_path / "step.pt")
    with pytest.raises(FilmstillError, match=r"not a Wan transformer; it holds 0 tensors: none"):
        read_network(tmp_path / "step.pt")
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"filmstill": "[]"})
    with pytest.raises(FilmstillError, match=r"damaged: its header is not as filmstill writes it"):
        read_network(tmp_path / "a.safetensors")


def test_targets_that_are_refused_stay_as_they_were(student, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "mine.pt").write_text("mine")
    for name, to, said in (
        ("full", "diffusers", "full: exists, and nothing is overwritten"),
        ("mine.pt", "self-forcing", "exists, and nothing is overwritten"),
        ("student", "filmstill", r"filmstill is one file, whose name ends in \.safetensors"),
        ("student.bin", "self-forcing", r"self-forcing is one file, whose name ends in \.pt or \.pth"),
        ("student.pt", "wan", r"wan is a folder, whose name does not end in \.pt"),
    ):
        with pytest.raises(FilmstillError, match=said):
            convert(student, tmp_path / name, to)
    assert left(tmp_path) == ["full", "mine.pt", "student.safetensors"]
    assert (tmp_path / "mine.pt").read_text() == (tmp_path / "full" / "mine").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    convert(student, tmp_path / "empty", "diffusers")
    assert left(tmp_path / "empty") == ["config.json", "diffusion_pytorch_model.safetensors"]


@pytest.mark.parametrize("to", SUFFIXES)
def test_a_write_that_fails_leaves_nothing(student, tmp_path, to):
    """The system refuses bytes past a limit, as it would on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(FilmstillError, match=r"cannot be written \(File too large\)"):
            convert(student, where(tmp_path, to), to)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert left(tmp_path) == ["student.safetensors"]


MEASURE = """
import sys, threading
from pathlib import Path
import torch
from filmstill.formats.convert import convert

torch.set_num_threads(1)
resident = lambda: [int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("Rss")]
_, small, shard_bytes, *words = sys.argv
convert(Path(small), Path("small.safetensors"), "filmstill")  # whatever is made once
for source, target in zip(words[::2], words[1::2]):
    before, peak, done = resident(), [0, 0, 0], threading.Event()

    def poll():
        while not done.wait(0.001):
            peak[:] = map(max, peak, resident())

    thread = threading.Thread(target=poll)
    thread.start()
    convert(Path(source), Path(target), Path(target).stem, heads=4, shard_bytes=int(shard_bytes))
    done.set()
    thread.join()
    anonymous, mapped, _ = (most - first for most, first in zip(peak, before))
    print(anonymous, mapped)
"""


def test_memory_holds_a_tensor_not_a_network(student, tmp_path):
    """Of 207 MB in tensors of at most 4 MB, from a pickle and from shards of 50 MB. What is mapped of a source is the
    page cache's; it is no more than one file of it either, unless torch.save must have the whole before it starts."""
    shard, pickled, sharded = 50_000_000, tmp_path / "large.pt", tmp_path / "large"
    config = DiTConfig(dim=512, ffn_dim=2048, num_heads=4, num_layers=12, freq_dim=32, text_dim=64, in_channels=16)
    torch.save({"generator": weights(config)}, pickled)
    convert(pickled, sharded, "wan", heads=4, shard_bytes=shard)
    assert len(left(sharded)) == 5 + 2
    words = [pickled, "filmstill.safetensors", sharded, "diffusers", sharded, "self-forcing.pt"]
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, student, str(shard), *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(filmstill.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    (pickle_anonymous, pickle_mapped), (shards_anonymous, shards_mapped), (anonymous, _) = (
        map(int, line.split()) for line in ran.stdout.splitlines()
    )
    print(ran.stdout)
    assert max(pickle_anonymous, shards_anonymous, anonymous) < 0.2 * shard
    assert pickle_anonymous + pickle_mapped < 1.2 * pickled.stat().st_size
    assert shards_anonymous + shards_mapped < 1.2 * shard
    assert read_network(tmp_path / "diffusers").config == config
    assert same(dict(read_network(tmp_path / "filmstill.safetensors").weights), weights(config))
