"""A weights file of another kind is named by its first bytes, wherever one is opened, and by `check`."""

import gzip
import io
import pickle
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from checkpoints import left, line_of, weights
from filmstill.formats.convert import convert
from filmstill.formats.layouts import read_network
from filmstill.formats.release import Release
from filmstill.formats.umt5 import import_umt5
from filmstill.formats.wan_vae import import_vae
from filmstill.models.weights import load_model
from filmstill.runtime.file_kind import fault_of
from mini_wan import write_mini
from tiny_umt5 import WAN_FILE

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{7:064}\nsize 507609880\n".encode()
PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"
WHOLE = "allowed: a whole .safetensors, .pt or .pth; "
LOG_IN = "log in or accept the model's licence if it asks, and download it again"
UNPACK = "unpack it and pass the file inside"
OTHER_RELEASE = "take the same model's release in bf16, fp16 or fp32"


def saved(value: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.safetensors"), io.BytesIO())
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model.safetensors", b"x")
    return buffer.getvalue()


def scripted() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Identity()), buffer)
    return buffer.getvalue()


def array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


TENSORS = {"a": torch.zeros(3, 4)}
ZIP, LEGACY = saved(TENSORS), saved(TENSORS, _use_new_zipfile_serialization=False)
SAFETENSORS = save(TENSORS)

# What is under the name of a weights file; what it is; what to do.
KINDS = {
    "pointer": (POINTER, r"a Git LFS pointer to 507609880 bytes, not the file", "run `git lfs pull` in its repository"),
    "page": (PAGE, r"a web page \(HTML\) \(<!DOCTYPE html> <html><head><title>Sign in", LOG_IN),
    "lowercase page": (b"\n<html lang='en'>", r"a web page \(HTML\)", LOG_IN),
    "XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', r"XML \(<\?xml .*AccessDenied", LOG_IN),
    "JSON": (b'{"error":"Repository not found"}', r'JSON \({"error":"Repository not found"}\)', LOG_IN),
    "text": (b"Entry not found", r"text \(Entry not found\), perhaps a server's error", LOG_IN),
    "empty": (b"", r"empty \(0 bytes\)", "download it again"),
    "zeros": (bytes(5000), r"an unfinished download: its 5000 bytes begin with 1024 zeros", "download it again"),
    "GGUF": (b"GGUF\x03\0\0\0" + bytes(5000), "GGUF, quantized weights of llama.cpp and ComfyUI", OTHER_RELEASE),
    "gzip": (gzip.compress(SAFETENSORS), "a gzip archive", UNPACK),
    "tar": (tar(), "a tar archive", UNPACK),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(100), "a 7z archive", UNPACK),
    "zip": (zipped(), r"a zip archive of model\.safetensors", UNPACK),
    "script": (scripted(), "a program of TorchScript", "save the state_dict of its module"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5, as Keras writes it", "take the model's PyTorch release"),
    "NumPy": (array(), "an array of NumPy", "take the model's PyTorch release"),
    "plain pickle": (
        pickle.dumps(TENSORS, 2),
        "a pickle that torch.save did not write; it was not executed",
        "convert",
    ),
    "noise": (bytes(range(128, 256)), "neither safetensors nor of torch.save: 128 bytes that begin with 80 81 82", ""),
    "cut zip": (ZIP[:-10], rf"truncated: a file of torch\.save without its end, {len(ZIP) - 10} bytes", "download it"),
    "cut legacy": (LEGACY[:10], r"truncated: the first 10 bytes of a file of torch\.save", "download it again"),
}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's release, not to be changed."""
    folder = tmp_path_factory.mktemp("released") / "wan"
    write_mini(folder, "wan")
    return folder


def readers(released: Path, path: Path, out: Path) -> dict[str, Callable[[], object]]:
    """Everything that opens a released weights file, each reading `path`."""
    tokenizer = released / "google/umt5-xxl"
    return {
        "network": lambda: convert(path, out / "n", "wan", heads=4),
        "encoder": lambda: import_umt5(path, tokenizer, out / "t"),
        "vae": lambda: import_vae(path, out / "v.safetensors", 16),
        "fast decoder": lambda: import_vae(released / "Wan2.1_VAE.pth", out / "v.safetensors", 16, fast=path),
    }


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_named_wherever_it_is_opened(released: Path, tmp_path: Path, kind: str, suffix: str):
    content, what, remedy = KINDS[kind]
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / f"file{suffix}"
    path.write_bytes(content)
    for read in readers(released, path, tmp_path).values():
        line = line_of(read)
        assert re.match(rf"{path}: is {what}.*, {re.escape(WHOLE)}", line), line
        assert remedy in line and "more than plain tensors" not in line
    assert left(tmp_path) == ["in"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_students_file_of_another_kind_is_named(tmp_path: Path, kind: str):
    path = tmp_path / "student.safetensors"
    path.write_bytes(KINDS[kind][0])
    line = line_of(lambda: load_model(path))
    pickled = KINDS[kind][0][:1] in (b"P", b"\x80") and kind != "noise"
    what = r"a pickle \(torch\.save\)" if pickled else f"not a whole safetensors file; it is {KINDS[kind][1]}"
    assert re.match(rf"{path}: {what}", line), line


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["diffusion_pytorch_model.safetensors", WAN_FILE, "Wan2.1_VAE.pth", "taew2_1.pth"])
def test_check_names_it_too(released: Path, tmp_path: Path, kind: str, name: str):
    """`check` and the teacher stage both begin with `Release.find`."""
    folder = tmp_path / "wan"
    folder.mkdir()
    for path in released.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / name).unlink()
    (folder / name).write_bytes(KINDS[kind][0])
    assert re.match(rf"{folder / name}: is {KINDS[kind][1]}", line_of(lambda: Release.find(folder)))


def test_check_names_a_tokenizers_pointer(released: Path, tmp_path: Path):
    folder = tmp_path / "wan"
    shutil.copytree(released, folder)
    (folder / "google/umt5-xxl/tokenizer.json").write_bytes(POINTER)
    line = line_of(lambda: Release.find(folder))
    assert "tokenizer.json: is a Git LFS pointer to 507609880 bytes, not the file, allowed: a fast tokenizer's" in line


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", SAFETENSORS, "a.pth: is a safetensors file under the suffix .pth, {}rename it to a.safetensors"),
        ("a.bin", SAFETENSORS, "a.bin: is a safetensors file under the suffix .bin, {}rename it to a.safetensors"),
        (
            "a.safetensors",
            ZIP,
            "is a pickle (torch.save) under the suffix .safetensors, {}rename it to a.pt",
        ),
        ("a.safetensors", LEGACY, "is a pickle (torch.save) under the suffix .safetensors, {}rename it to a.pt"),
        (
            "a.safetensors.crdownload",
            SAFETENSORS,
            "is an unfinished download of 120 bytes, {}finish it",
        ),
        ("a.safetensors", SAFETENSORS[:-8], "a.safetensors: is truncated: 112 of 120 bytes are there, {}download it"),
        (
            "a.safetensors",
            SAFETENSORS[:40],
            "is truncated: its header alone takes 72 bytes, 40 are there, {}download",
        ),
        (
            "a.safetensors",
            SAFETENSORS + b"x",
            "is damaged: its header describes 120 bytes, 121 are there, {}download",
        ),
        (
            "__0_0.distcp",
            ZIP,
            "is one of several shards of torch.distributed.checkpoint, {}make one file of it, `",
        ),
    ],
)
def test_names_that_do_not_fit_and_halves_by_their_sizes(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    assert message.format(WHOLE) in line_of(lambda: read_network(tmp_path / name))


def test_half_a_download_is_known_by_its_neighbours(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    (tmp_path / "a.safetensors.crdownload").write_bytes(bytes(7))
    message = r"a.safetensors: no such file or folder (its download has not ended: a.safetensors.crdownload, 7 bytes)"
    assert message in line_of(lambda: read_network(path))
    path.write_bytes(SAFETENSORS[:-8])
    message = "a.safetensors: is truncated: 112 of 120 bytes are there; a.safetensors.crdownload beside it is an unfin"
    assert message in line_of(lambda: read_network(path))
    path.touch()
    path.write_bytes(b"")
    assert "is empty (0 bytes); a.safetensors.crdownload beside it is an" in line_of(lambda: read_network(path))
    path.write_bytes(SAFETENSORS)
    assert fault_of(path) is None  # whole: the download is another one
    (tmp_path / "a.safetensors.aria2").touch()  # aria2 gives a file its whole length at once
    assert "is an unfinished download: a.safetensors.aria2 is beside it" in line_of(lambda: read_network(path))


def test_a_missing_file_of_a_release_tells_of_its_download(released: Path, tmp_path: Path):
    folder = tmp_path / "wan"
    shutil.copytree(released, folder)
    (folder / "Wan2.1_VAE.pth").unlink()
    unfinished = folder / ".cache/huggingface/download/hash.etag.incomplete"
    unfinished.parent.mkdir(parents=True)
    unfinished.touch()
    line = line_of(lambda: Release.find(folder))
    assert (
        "Wan2.1_VAE.pth: missing (1 unfinished downloads are in .cache/huggingface beside it); download it: hf" in line
    )
    (folder / "Wan2.1_VAE.pth").symlink_to("../blobs/96b6")
    assert "Wan2.1_VAE.pth: missing (a link to ../blobs/96b6, which does not exist); download it" in line_of(
        lambda: Release.find(folder)
    )


@pytest.mark.parametrize("cut", [15, 16, 30, 100, len(LEGACY) - 60, len(LEGACY) - 1])
def test_a_truncated_file_from_before_torch_1_6(tmp_path: Path, cut: int):
    (tmp_path / "a.pt").write_bytes(LEGACY[:cut])
    assert "a.pt: is truncated or damaged: not a whole file of torch.save" in line_of(
        lambda: read_network(tmp_path / "a.pt")
    )


def test_whole_files_of_every_kind_have_no_fault(tmp_path: Path):
    for name, content in (
        ("a.pt", ZIP),
        ("b.pth", LEGACY),
        ("c.safetensors", SAFETENSORS),
        ("d", SAFETENSORS),
        ("e", ZIP),
    ):
        (tmp_path / name).write_bytes(content)
        assert fault_of(tmp_path / name) is None
    torch.save(weights(), tmp_path / "network")  # a name without a suffix, as in Hugging Face's cache
    assert read_network(tmp_path / "network", heads=4).format == "wan"


def test_only_a_pickle_of_more_than_tensors_is_called_one(tmp_path: Path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    message = (
        "module.pt: holds more than plain tensors; it was not executed. Convert it to safetensors where it was made"
    )
    assert message in line_of(lambda: read_network(tmp_path / "module.pt"))
    (tmp_path / "broken.pt").write_bytes(LEGACY[:20] + b"\x94" + LEGACY[20:])
    message = "broken.pt: is damaged, or was not pickled as torch.save does (Unsupported operand 148)"
    assert message in line_of(lambda: read_network(tmp_path / "broken.pt"))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("legacy", [False, True])
def test_every_protocol_of_torch_save_is_known(tmp_path: Path, protocol: int, legacy: bool):
    path = tmp_path / "a.pt"
    path.write_bytes(saved(TENSORS, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy))
    if protocol < 4:
        assert fault_of(path) is None
        return
    assert line_of(lambda: read_network(path)) == (
        f"{path}: is of torch.save with pickle_protocol {protocol}, which can be read only by executing it, "
        f"{WHOLE}save it where it was made, as safetensors or with pickle_protocol at most 3"
    )
