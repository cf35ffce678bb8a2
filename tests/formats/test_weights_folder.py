"""One rule chooses a folder's weights and follows an index, for network, text encoder and VAE alike."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from checkpoints import line_of, same, weights
from filmstill.formats.convert import convert
from filmstill.formats.layouts import read_network
from filmstill.formats.release import Release, find_networks
from filmstill.formats.umt5 import import_umt5
from filmstill.formats.wan_vae import import_vae
from filmstill.formats.weights_folder import list_weights
from filmstill.models.weights import save_model
from goldens import TINY
from mini_wan import CONFIG, write_mini


@dataclass(frozen=True)
class Part:
    """A folder of weights as released, what reads it, and the bytes that come of it."""

    folder: Path
    stem: str  # of safetensors
    pickle_stem: str
    read: Callable[[Path, Path], bytes]

    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.folder / f"{self.stem}.safetensors")

    def beside(self, target: Path) -> None:
        """Copy the config, not the weights."""
        target.mkdir(parents=True)
        (target / "config.json").write_text((self.folder / "config.json").read_text())


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Part]:
    release = tmp_path_factory.mktemp("release")
    write_mini(release, "diffusers")
    tokenizer = release / "tokenizer/tokenizer.json"

    def network(folder: Path, out: Path) -> bytes:
        convert(folder, out / "n.safetensors", "filmstill")
        return (out / "n.safetensors").read_bytes()

    def encoder(folder: Path, out: Path) -> bytes:
        import_umt5(folder, tokenizer, out / "text")
        return (out / "text/encoder.safetensors").read_bytes()

    def vae(folder: Path, out: Path) -> bytes:
        import_vae(folder, out / "codec.safetensors", 16)
        return (out / "codec.safetensors").read_bytes()

    stem = "diffusion_pytorch_model"
    return {
        "network": Part(release / "transformer", stem, stem, network),
        "encoder": Part(release / "text_encoder", "model", "pytorch_model", encoder),
        "vae": Part(release / "vae", stem, stem, vae),
    }


@pytest.fixture(params=["network", "encoder", "vae"])
def part(parts: dict[str, Part], request: pytest.FixtureRequest) -> Part:
    return parts[request.param]


def write_shards(folder: Path, tensors: dict[str, Tensor], name: str, index: str) -> dict[str, str]:
    """Two files, `name` with the shard's number for {}, and an index; returns its weight_map."""
    names, placed = list(tensors), {}
    for number, some in ((1, names[::2]), (2, names[1::2])):
        file = name.format(f"-0000{number}-of-00002")
        held = {one: tensors[one] for one in some}
        torch.save(held, folder / file) if file.endswith(".bin") else save_file(held, folder / file)
        placed |= dict.fromkeys(some, file)
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return placed


@pytest.mark.parametrize("variant", ["", ".fp16", ".bf16"])
@pytest.mark.parametrize("kind", ["single", "sharded", "variant last", "pickle", "pickled shards"])
def test_every_name_that_diffusers_and_transformers_write_is_read(part: Part, tmp_path: Path, variant: str, kind: str):
    folder = tmp_path / "in"
    part.beside(folder)
    stem, pickled, tensors = part.stem, part.pickle_stem, part.tensors()
    if kind == "single":
        save_file(tensors, folder / f"{stem}{variant}.safetensors")
    elif kind == "sharded":  # diffusers: diffusion_pytorch_model.safetensors.index.fp16.json
        index = f"{stem}.safetensors.index{variant}.json"
        write_shards(folder, tensors, f"{stem}{variant}{{}}.safetensors", index)
    elif kind == "variant last":
        write_shards(folder, tensors, f"{stem}{{}}{variant}.safetensors", f"{stem}{variant}.safetensors.index.json")
    elif kind == "pickle":
        torch.save(tensors, folder / f"{pickled}{variant}.bin")
    else:
        write_shards(folder, tensors, f"{pickled}{variant}{{}}.bin", f"{pickled}.bin.index{variant}.json")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert part.read(folder, tmp_path / "a") == part.read(part.folder, tmp_path / "b")


def test_an_index_is_followed_and_what_it_does_not_list_is_ignored(part: Part, tmp_path: Path):
    """A stray shard of an older download, with other values under the same names, does not win over the index."""
    folder, tensors = tmp_path / "in", part.tensors()
    part.beside(folder)
    stem = part.stem
    placed = write_shards(folder, tensors, f"{stem}{{}}.safetensors", f"{stem}.safetensors.index.json")
    old = {name: tensor + 1 for name, tensor in tensors.items()}
    save_file(old, folder / f"{stem}-00003-of-00003.safetensors")
    torch.save(old, folder / f"{stem}-00001-of-00003.bin")
    first = min(placed.values())
    for name, file in placed.items():  # a listed shard may hold more than the index puts there
        if file != first:
            save_file({**load_file(folder / first), name: old[name], "leftover": torch.zeros(3)}, folder / first)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert part.read(folder, tmp_path / "a") == part.read(part.folder, tmp_path / "b")


def test_a_plain_set_is_preferred_to_a_variant_and_safetensors_to_pickles(part: Part, tmp_path: Path):
    folder, tensors = tmp_path / "in", part.tensors()
    part.beside(folder)
    other = {name: tensor + 1 for name, tensor in tensors.items()}
    save_file(tensors, folder / f"{part.stem}.safetensors")
    save_file(other, folder / f"{part.stem}.fp16.safetensors")
    torch.save(other, folder / f"{part.pickle_stem}.bin")
    write_shards(folder, other, f"{part.stem}.bf16{{}}.safetensors", f"{part.stem}.safetensors.index.bf16.json")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert part.read(folder, tmp_path / "a") == part.read(part.folder, tmp_path / "b")


def test_sets_that_no_rule_tells_apart_are_refused_by_name(part: Part, tmp_path: Path):
    folder, tensors, stem = tmp_path / "in", part.tensors(), part.stem
    part.beside(folder)
    save_file(tensors, folder / f"{stem}.fp16.safetensors")
    save_file(tensors, folder / f"{stem}.bf16.safetensors")
    line = line_of(lambda: part.read(folder, tmp_path))
    assert f"in: expected one weights file or a *.index.json, found 2 ({stem}.bf16.safetensors, {stem}.fp16" in line
    assert line.endswith("; remove those of another download, or pass one file")
    save_file(tensors, folder / f"{stem}.safetensors")
    write_shards(folder, tensors, f"{stem}{{}}.safetensors", f"{stem}.safetensors.index.json")
    line = line_of(lambda: part.read(folder, tmp_path))
    assert f"found 2 ({stem}.safetensors, {stem}.safetensors.index.json)" in line


def test_shards_that_are_missing_misplaced_or_elsewhere(part: Part, tmp_path: Path):
    folder, tensors, stem = tmp_path / "in", part.tensors(), part.stem
    part.beside(folder)
    index = folder / f"{stem}.safetensors.index.json"
    placed = write_shards(folder, tensors, f"{stem}{{}}.safetensors", index.name)
    second = folder / f"{stem}-00002-of-00002.safetensors"
    line = line_of(lambda: part.read(second, tmp_path))
    assert line == f"{second}: is shard 2 of 2; pass its folder, {folder}"
    name = next(name for name, file in placed.items() if file == second.name)
    index.write_text(json.dumps({"weight_map": {**placed, name: f"{stem}-00001-of-00002.safetensors"}}))
    line = line_of(lambda: part.read(folder, tmp_path))
    assert f"00001-of-00002.safetensors: has no tensor {name}, which {index.name} puts there; download it" in line
    for outside in ("../x.safetensors", "/etc/x.safetensors", "a/../../x", "..\\x", "", 3, None):
        index.write_text(json.dumps({"weight_map": {**placed, name: outside}}))
        line = line_of(lambda: part.read(folder, tmp_path))
        assert line == f"{index}: weight_map: {name}: is {outside!r}, allowed: a file in this folder"
    index.write_text(json.dumps({"weight_map": placed}))
    second.unlink()
    line = line_of(lambda: part.read(folder, tmp_path))
    assert line == f"{second}: missing; {index.name} lists 2 shards"
    index.unlink()
    line = line_of(lambda: part.read(folder, tmp_path))
    assert line == f"{index}: missing; 1 shards are there, download it, too"
    index.write_text("[]")
    assert "index.json: is a JSON list, allowed: a whole JSON object; download it again" in line_of(
        lambda: part.read(folder, tmp_path)
    )
    index.write_text("{}")
    assert "index.json: lists no shards: its weight_map is None" in line_of(lambda: part.read(folder, tmp_path))
    assert "is JSON, the index of shards" not in line_of(lambda: part.read(index, tmp_path))
    index.write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    line = line_of(lambda: part.read(index, tmp_path))
    assert "index.json: is JSON, the index of shards" in line and "pass the folder that it is in" in line


def test_wans_own_folder_of_shards_among_other_files(tmp_path: Path):
    """As Wan2.1-T2V-14B: an index, shards, text encoder and VAE in one folder; check reads the same files."""
    write_mini(tmp_path / "wan", "wan")
    single = tmp_path / "wan/diffusion_pytorch_model.safetensors"
    tensors = load_file(single)
    single.unlink()
    stem = "diffusion_pytorch_model"
    write_shards(tmp_path / "wan", tensors, f"{stem}{{}}.safetensors", f"{stem}.safetensors.index.json")
    save_file({"stray": torch.zeros(1)}, tmp_path / "wan" / f"{stem}-00003-of-00003.safetensors")
    assert same(dict(read_network(tmp_path / "wan").weights), tensors)
    names = {path.name for path in Release.find(tmp_path / "wan").files()}
    assert f"{stem}-00001-of-00002.safetensors" in names and f"{stem}.safetensors.index.json" in names
    assert f"{stem}-00003-of-00003.safetensors" not in names and "config.json" in names


def test_a_folder_of_two_experts_says_which_to_pass(tmp_path: Path):
    write_mini(tmp_path / "a14b", "experts")
    line = line_of(lambda: read_network(tmp_path / "a14b"))
    assert line.endswith("found 0 (none); pass one of its folders: high_noise_model, low_noise_model")
    assert read_network(tmp_path / "a14b/high_noise_model").format == "wan"


def test_half_a_pipeline_of_experts_is_not_one_network(tmp_path: Path):
    """Wan2.2's pipeline lists transformer_2, without which the high-noise expert would serve every noise level."""
    folder = tmp_path / "a14b"
    write_mini(folder, "diffusers")
    one, none = ["diffusers", "WanTransformer3DModel"], [None, None]
    for second, count in ((none, 1), (None, 1), (one, 2)):
        index = {"_class_name": "WanPipeline", "transformer": one, "transformer_2": second}
        (folder / "model_index.json").write_text(json.dumps(index))
        if count == 1:
            assert find_networks(folder) == [folder / "transformer"]
            assert read_network(folder).config == CONFIG
    for read in (find_networks, Release.find):
        line = line_of(lambda read=read: read(folder))
        assert line.startswith(f"{folder}/transformer_2: missing; download it: hf download Wan-AI/a14b")
    two = f"{folder}: is a pipeline of two experts, allowed: one network; pass one of its folders: transformer, "
    assert line_of(lambda: read_network(folder)) == f"{two}transformer_2"
    (folder / "transformer_2").mkdir()
    assert line_of(lambda: find_networks(folder)).startswith(f"{folder}/transformer_2/config.json: missing; download")
    shutil.copytree(folder / "transformer", folder / "transformer_2", dirs_exist_ok=True)
    assert find_networks(folder) == [folder / "transformer", folder / "transformer_2"]
    assert line_of(lambda: read_network(folder)) == f"{two}transformer_2"
    shutil.rmtree(folder / "transformer")
    assert line_of(lambda: find_networks(folder)).startswith(f"{folder}/transformer: missing; download it: hf")


def test_a_lone_first_shard_of_one_is_a_whole_file(tmp_path: Path):
    save_model(tmp_path / "a.safetensors", weights(), TINY, {})
    convert(tmp_path / "a.safetensors", tmp_path / "wan", "wan")
    single = tmp_path / "wan/diffusion_pytorch_model.safetensors"
    single.rename(single.with_name("diffusion_pytorch_model-00001-of-00001.safetensors"))
    assert list(list_weights(tmp_path / "wan").files.values()) == [None]
    assert same(dict(read_network(tmp_path / "wan").weights), weights())


def test_links_that_lead_nowhere_and_folders_named_like_weights(part: Part, tmp_path: Path):
    folder = tmp_path / "in"
    part.beside(folder)
    link = folder / f"{part.stem}.safetensors"
    link.symlink_to("../blobs/0f")
    line = line_of(lambda: part.read(folder, tmp_path))
    assert line == f"{link}: missing (a link to ../blobs/0f, which does not exist); download it again"
    link.unlink()
    link.mkdir()
    assert "in: expected one weights file or a *.index.json, found 0 (none)" in line_of(
        lambda: part.read(folder, tmp_path)
    )


@pytest.mark.parametrize("place", ["{stem}-{shard}.fp16", "{stem}.fp16-{shard}"])
def test_shards_of_a_variant_are_shards_in_both_spellings(part: Part, tmp_path: Path, place: str):
    """diffusers wrote the variant after the shard's number before it wrote it before."""
    folder, stem = tmp_path / "in", part.stem
    part.beside(folder)
    file = place.replace("{stem}", stem).replace("-{shard}", "{}") + ".safetensors"
    index = folder / f"{stem}.safetensors.index.fp16.json"
    placed = write_shards(folder, part.tensors(), file, index.name)
    (tmp_path / "whole").mkdir()
    assert part.read(folder, tmp_path / "whole")
    index.unlink()
    first, second = sorted({folder / name for name in placed.values()})
    line = line_of(lambda: part.read(first, tmp_path))
    assert line == f"{first}: is shard 1 of 2; pass its folder, {folder}"
    assert line_of(lambda: part.read(folder, tmp_path)) == f"{index}: missing; 2 shards are there, download it, too"
    second.unlink()
    assert line_of(lambda: part.read(folder, tmp_path)) == f"{index}: missing; 1 shards are there, download it, too"
