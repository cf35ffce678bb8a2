"""Checkpoints go from any layout to any other bit for bit, or not at all and for a reason in one line."""

import json
import os
import pickle
import resource
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import filmstill
from filmstill.errors import FilmstillError
from filmstill.models.convert import SUFFIXES, convert
from filmstill.models.dit import DiTConfig, VideoDiT
from filmstill.models.layouts import read_network
from filmstill.models.names import from_diffusers, strip_wrappers, to_diffusers, to_wan
from filmstill.models.weights import load_model, save_model
from filmstill.runtime.files import save_tensors
from goldens import TINY, assert_close, swap

NAMES = list(VideoDiT(TINY).state_dict())
SHARD = 60_000  # bytes: several files for a tiny network


def weights(config: DiTConfig = TINY, seed: int = 0, mixed: bool = False) -> dict[str, Tensor]:
    """Every parameter random, near what keeps activations moderate; `mixed`: every third is bfloat16."""
    random = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in VideoDiT(config).state_dict().items()}
    dtypes = (torch.bfloat16, torch.float32, torch.float32) if mixed else (torch.float32,)
    return {
        name: (0.2 * torch.randn(shape, generator=random) + ("norm" in name)).to(dtypes[n % len(dtypes)])
        for n, (name, shape) in enumerate(shapes.items())
    }


def where(folder: Path, to: str) -> Path:
    return folder / f"{to}{(*SUFFIXES[to], '')[0]}"


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        t.dtype == theirs[name].dtype and torch.equal(t, theirs[name]) for name, t in ours.items()
    )


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def student(tmp_path: Path) -> Path:
    path = tmp_path / "student.safetensors"
    save_model(path, weights(mixed=True), TINY, {})
    return path


def test_names_are_those_of_the_public_converter_and_come_back():
    from diffusers import WanTransformer3DModel
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    theirs = list(convert_wan_transformer_to_diffusers({name: torch.zeros(1) for name in NAMES}))
    assert [to_diffusers(name) for name in NAMES] == theirs
    assert [from_diffusers(name) for name in theirs] == NAMES
    with torch.device("meta"):
        model = WanTransformer3DModel(
            num_attention_heads=4, attention_head_dim=12, ffn_dim=96, num_layers=2, freq_dim=32, text_dim=16
        )
    assert set(theirs) == set(model.state_dict())


@pytest.mark.parametrize(
    "name", ["", "blocks", "blocks.0.cross_attn.k_img.weight", "img_emb.proj.0.bias", "blocks.x.q"]
)
def test_other_names_stay_as_they_are(name):
    assert to_diffusers(name) == from_diffusers(name) == strip_wrappers(name) == name


@pytest.mark.parametrize(
    "wrapper", ["_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_orig_mod", "module", "model"]
)
def test_wrappers_come_off_wherever_they_are(wrapper):
    for name in NAMES:
        parts = name.split(".")
        for at in range(len(parts)):
            wrapped = ".".join([*parts[:at], wrapper, *parts[at:]])
            assert to_wan(f"model.{wrapped}") == strip_wrappers(wrapped) == name


@pytest.mark.parametrize(("first", "second"), list(product(SUFFIXES, SUFFIXES)))
def test_every_pair_of_layouts_round_trips_bit_for_bit(student, tmp_path, first, second):
    """The file that comes back is the very file that `save_model` wrote: names, dtypes, order, digest, all."""
    one, two, back = where(tmp_path / "1", first), where(tmp_path / "2", second), tmp_path / "back.safetensors"
    assert convert(student, one, first).format == "filmstill"
    read = convert(one, two, second, heads=4, shard_bytes=SHARD)
    assert read.format == first
    assert same(dict(read.weights), weights(mixed=True))
    assert convert(two, back, "filmstill", heads=4).config == TINY
    assert back.read_bytes() == student.read_bytes()


def test_facts_stay_in_a_filmstill_file_and_give_wan_its_text_length(tmp_path):
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_model(source, weights(), TINY, {"text_len": 16, "steps": 4})
    assert convert(source, target, "filmstill").facts == {"text_len": 16, "steps": 4}
    model, facts = load_model(target, TINY)
    assert facts == {"text_len": 16, "steps": 4}
    assert same(model.state_dict(), weights())
    assert target.read_bytes() == source.read_bytes()
    convert(source, tmp_path / "wan", "wan")
    assert json.loads((tmp_path / "wan" / "config.json").read_text())["text_len"] == 16


@pytest.mark.parametrize("shard_bytes", [10**9, SHARD])
@torch.no_grad()
def test_diffusers_loads_the_export_and_computes_the_same(tmp_path, shard_bytes):
    from diffusers import WanTransformer3DModel

    save_model(tmp_path / "a.safetensors", weights(), TINY, {})
    convert(tmp_path / "a.safetensors", tmp_path / "export", "diffusers", shard_bytes=shard_bytes)
    theirs, info = WanTransformer3DModel.from_pretrained(tmp_path / "export", output_loading_info=True)
    assert not any(info.values())
    ours, _ = load_model(tmp_path / "a.safetensors")
    random = torch.Generator().manual_seed(1)
    x, text = torch.randn(2, 3, 4, 4, 6, generator=random), torch.randn(2, 5, 16, generator=random)
    t = torch.tensor([875.0, 20.0])
    assert_close(swap(theirs(swap(x), t, text).sample), ours(x, t, ours.read_text(text)), 2e-5)


def test_a_folder_is_cut_into_shards_that_keep_to_their_size_and_an_index(student, tmp_path):
    convert(student, tmp_path / "wan", "wan", shard_bytes=SHARD)
    index = json.loads((tmp_path / "wan" / "diffusion_pytorch_model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 3
    assert files[0] == f"diffusion_pytorch_model-00001-of-{len(files):05}.safetensors"
    held = {file: load_file(tmp_path / "wan" / file) for file in files}
    assert {name: file for file in files for name in held[file]} == index["weight_map"]
    sizes = [sum(tensor.nbytes for tensor in shard.values()) for shard in held.values()]
    assert max(sizes) <= SHARD
    assert sum(sizes) == index["metadata"]["total_size"] == sum(t.nbytes for t in weights(mixed=True).values())
    (tmp_path / "wan" / files[1]).unlink()
    with pytest.raises(FilmstillError, match=f"{files[1]}: missing"):
        read_network(tmp_path / "wan")


def test_a_tensor_larger_than_a_shard_stands_alone(student, tmp_path):
    convert(student, tmp_path / "wan", "wan", shard_bytes=1)
    assert len(left(tmp_path / "wan")) == len(NAMES) + 2
    assert same(dict(read_network(tmp_path / "wan").weights), weights(mixed=True))


def test_folders_as_they_are_released(student, tmp_path):
    """Wan's own holds other networks' files, too; a diffusers pipeline has the transformer inside."""
    convert(student, tmp_path / "wan", "wan")
    for other in ("Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth"):
        torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "wan" / other)
    assert same(dict(read_network(tmp_path / "wan").weights), weights(mixed=True))
    alone = read_network(tmp_path / "wan" / "diffusion_pytorch_model.safetensors")
    assert (alone.config, alone.format) == (TINY, "wan")  # the heads of the config.json beside it
    convert(student, tmp_path / "pipeline" / "transformer", "diffusers")
    network = read_network(tmp_path / "pipeline")
    assert (network.config, network.format) == (TINY, "diffusers")
    torch.save(weights(mixed=True), tmp_path / "wan.pth")
    assert same(dict(read_network(tmp_path / "wan.pth", heads=4).weights), weights(mixed=True))


def test_the_part_of_a_self_forcing_file_is_chosen(tmp_path):
    """EMA first; FSDP's names; parameters are tensors; whatever is beside the parts is no weight."""
    path = tmp_path / "model.pt"
    plain = {f"model.{name}": nn.Parameter(tensor) for name, tensor in weights(seed=1).items()}
    fsdp = {
        f"model._fsdp_wrapped_module.{name.replace('blocks.', 'blocks._checkpoint_wrapped_module.')}": tensor
        for name, tensor in weights(seed=2).items()
    }
    critic = {f"model.{name}": tensor for name, tensor in weights(seed=3).items()}
    torch.save({"generator": plain, "generator_ema": fsdp, "critic": critic, "step": torch.tensor(3)}, path)
    for part, seed in ((None, 2), ("generator_ema", 2), ("generator", 1), ("critic", 3)):
        assert same(dict(read_network(path, part, heads=4).weights), weights(seed=seed))
    torch.save({"generator": plain, "critic": critic}, path)
    assert same(dict(read_network(path, heads=4).weights), weights(seed=1))
    with pytest.raises(FilmstillError, match=r"model\.pt: has no part 'generator_ema'; it has critic, generator$"):
        read_network(path, "generator_ema", heads=4)
    torch.save({"critic": critic}, path)
    with pytest.raises(FilmstillError, match=r"has no part 'generator'; it has critic$"):
        read_network(path, heads=4)
    torch.save(weights(), path)
    with pytest.raises(FilmstillError, match="has no part 'generator'; it has one network and no parts"):
        read_network(path, "generator", heads=4)


def test_a_self_forcing_file_is_what_that_code_loads(student, tmp_path):
    target = tmp_path / "model.pt"
    convert(student, target, "self-forcing")
    loaded = torch.load(target, weights_only=True)
    assert list(loaded) == ["generator"]
    assert same(loaded["generator"], {f"model.{name}": tensor for name, tensor in weights(mixed=True).items()})
    convert(student, tmp_path / "other.pt", "self-forcing")
    assert (tmp_path / "other.pt").read_bytes() == target.read_bytes()


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
from filmstill.models.convert import convert

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
