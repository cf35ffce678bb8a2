"""What a weights file really is, by its first bytes, its length and its neighbours. Nothing in it is executed.

A failed download leaves another kind of file under the right name: a Git LFS pointer, a login page, a server's error,
or the first half. Without torch, since `check` reads every released file.
"""

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PICKLES = (".pt", ".pth", ".bin", ".ckpt")  # suffixes of torch.save's files
SAFETENSORS, ZIP, PICKLE = "safetensors", "torch.save's zip", "pickle"  # the kinds that hold tensors
AGAIN = "download it again"
TO_ONE_FILE = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch"

# Suffixes that download programs give to a file that is not whole yet; aria2's is a list of what is missing.
_UNFINISHED = (".aria2", ".crdownload", ".download", ".incomplete", ".part", ".partial")
_START = 1024  # bytes read to recognise a file
_LARGEST_HEADER = 100_000_000  # bytes: the safetensors library's limit; a pickle of tensors is far smaller
# torch.save before torch 1.6: the pickle of a magic number. From protocol 4 on a pickle begins with a frame's length.
_MAGIC_NUMBER = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LEGACY = (
    *(b"\x80" + protocol + _MAGIC_NUMBER for protocol in (b"\x02", b"\x03")),
    *(b"\x80" + protocol + b"\x95\x0d" + bytes(7) + _MAGIC_NUMBER for protocol in (b"\x04", b"\x05")),
)
_NEWEST_PROTOCOL = 3  # of pickles that torch.load(weights_only=True) reads
_LOSSY = "take the same model's release in bf16, fp16 or fp32"
_UNPACK = "unpack it and pass the file inside"
_MAGIC = {
    b"GGUF": ("is GGUF, quantized weights of llama.cpp and ComfyUI", _LOSSY),
    b"\x1f\x8b": ("is a gzip archive", _UNPACK),
    b"7z\xbc\xaf\x27\x1c": ("is a 7z archive", _UNPACK),
    b"Rar!": ("is a rar archive", _UNPACK),
    b"\xfd7zXZ\x00": ("is an xz archive", _UNPACK),
    b"BZh": ("is a bzip2 archive", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("is a zstd archive", _UNPACK),
    b"\x89HDF": ("is HDF5, as Keras writes it", "take the model's PyTorch release"),
    b"\x93NUMPY": ("is an array of NumPy", "take the model's PyTorch release"),
}
# Modules whose objects a pickle may hold in place of plain tensors.
_SHARDED = (
    "is one rank's part of sharded tensors (FSDP, DTensor)",
    f"save them by torch.distributed.checkpoint where they were trained, then run `{TO_ONE_FILE} FOLDER model.pt`",
)
_MODULES = {
    b"ctorch.distributed.": _SHARDED,
    b"ctorchao.": ("is quantized by torchao", _LOSSY),
    b"cbitsandbytes.": ("is quantized by bitsandbytes", _LOSSY),
}


@dataclass(frozen=True)
class Fault:
    """`what` is a predicate ("is empty (0 bytes)"), `remedy` what to do next."""

    what: str
    remedy: str = AGAIN


def fault_of(path: Path) -> Fault | None:
    """Why an existing file is not a whole weights file; None if it looks like one. Only an opener sees all of it."""
    size = path.stat().st_size
    if path.suffix in _UNFINISHED:
        return Fault(f"is an unfinished download of {size} bytes", "finish it and pass the whole file")
    if path.suffix == ".distcp" or path.name == ".metadata":
        folder = path.parent
        return Fault("is one of several shards of torch.distributed.checkpoint", one_file_of(folder))
    if (control := path.with_name(f"{path.name}.aria2")).exists():  # aria2 reserves the whole size at its start
        return Fault(f"is an unfinished download: {control.name} is beside it", f"finish it, or {AGAIN}")
    start = first_bytes(path)
    kind = kind_of(start)
    if kind is None:
        return _with_neighbour(path, foreign_fault(start, size))
    if fault := {SAFETENSORS: _safetensors_fault, ZIP: _zip_fault, PICKLE: _pickle_fault}[kind](path, size):
        return _with_neighbour(path, fault)
    if kind == SAFETENSORS and path.suffix in PICKLES:
        what, suffix = "is a safetensors file", ".safetensors"
    elif kind != SAFETENSORS and path.suffix == ".safetensors":
        what, suffix = "is a pickle (torch.save)", ".pt"
    else:
        return None
    return Fault(f"{what} under the suffix {path.suffix}", f"rename it to {path.with_suffix(suffix).name}")


def first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_START)


def kind_of(start: bytes) -> str | None:
    """SAFETENSORS, ZIP or PICKLE, by a file's first bytes; None for any other file."""
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _LARGEST_HEADER:
        return SAFETENSORS
    if start.startswith(b"PK\x03\x04"):
        return ZIP
    if start[:1] == b"\x80" and start[1:2] <= b"\x05":
        return PICKLE
    return None


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Header entries (dtype, shape, data_offsets) of a safetensors file by tensor, without `__metadata__`.

    Raises ValueError, with the predicate of a Fault, if the header is not whole or not of that form.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length)
    if len(text) < length:
        raise ValueError(f"is truncated: its header alone takes {8 + length} bytes, {8 + len(text)} are there")
    try:
        entries = {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}
        well_formed = all(
            isinstance(entry["dtype"], str)
            and len(entry["data_offsets"]) == 2
            and all(isinstance(number, int) for number in [*entry["shape"], *entry["data_offsets"]])
            for entry in entries.values()
        )
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        well_formed = False
    if not well_formed:
        raise ValueError("is damaged: the header of its safetensors cannot be read")
    return entries


def why_missing(path: Path) -> str:
    """Why a missing file is missing, in brackets, where a link or an unfinished download shows it; else ""."""
    if path.is_symlink():
        return f" (a link to {path.readlink()}, which does not exist)"
    if found := _unfinished_beside(path):
        return f" (its download has not ended: {found.name}, {found.stat().st_size} bytes)"
    unfinished = list(path.parent.glob(".cache/huggingface/download/**/*.incomplete"))
    return f" ({len(unfinished)} unfinished downloads are in .cache/huggingface beside it)" if unfinished else ""


def one_file_of(folder: Path) -> str:
    """The remedy for a folder of torch.distributed.checkpoint."""
    return f"make one file of it, `{TO_ONE_FILE} {folder} model.pt`, and pass that"


def _unfinished_beside(path: Path) -> Path | None:
    candidates = (path.with_name(f"{path.name}{suffix}") for suffix in _UNFINISHED)
    return next((candidate for candidate in candidates if candidate.exists()), None)


def _with_neighbour(path: Path, fault: Fault) -> Fault:
    """The fault, with the unfinished download beside the file, if there is one."""
    found = _unfinished_beside(path) if fault.remedy == AGAIN else None
    return Fault(f"{fault.what}; {found.name} beside it is an unfinished download") if found else fault


def foreign_fault(start: bytes, size: int) -> Fault:
    """The fault of a file of `size` bytes that is neither tensors in a form that is read here nor a JSON object."""
    if not size:
        return Fault("is empty (0 bytes)")
    if start.startswith(b"version https://git-lfs"):
        length = re.search(rb"^size (\d+)", start, re.MULTILINE)
        of = f" to {length[1].decode()} bytes" if length else ""
        return Fault(f"is a Git LFS pointer{of}, not the file", f"run `git lfs pull` in its repository or {AGAIN}")
    for magic, (what, remedy) in _MAGIC.items():
        if start.startswith(magic):
            return Fault(what, remedy)
    if start[257:262] == b"ustar":
        return Fault("is a tar archive", _UNPACK)
    if not start.strip(b"\0"):
        return Fault(f"is an unfinished download: its {size} bytes begin with {len(start)} zeros")
    text = start.decode("utf-8-sig", errors="replace").removesuffix("\ufffd")  # the last character may be cut
    if not text or "\ufffd" in text or not all(one.isprintable() or one.isspace() for one in text):
        return Fault(f"is neither safetensors nor of torch.save: {size} bytes that begin with {start[:8].hex(' ')}")
    words = " ".join(text.split())
    shown = f" ({words[:80]}{'…' if len(words) > 80 else ''})"
    log_in = f"log in or accept the model's licence if it asks, and {AGAIN}"
    if re.match(r"<(!doctype html|html|head|body)", words, re.IGNORECASE):
        return Fault(f"is a web page (HTML){shown}", log_in)
    if words.startswith("<"):
        return Fault(f"is XML{shown}, perhaps a server's error", log_in)
    if words.startswith(("{", "[")):
        if '"weight_map"' in words:
            return Fault("is JSON, the index of shards", "pass the folder that it is in")
        return Fault(f"is JSON{shown}, perhaps a server's error", log_in)
    return Fault(f"is text{shown}, perhaps a server's error", log_in)


def _safetensors_fault(path: Path, size: int) -> Fault | None:
    try:
        ends = [entry["data_offsets"][1] for entry in read_header(path).values()]
    except ValueError as error:
        return Fault(str(error))
    whole = 8 + int.from_bytes(first_bytes(path)[:8], "little") + max(ends, default=0)
    if size < whole:
        return Fault(f"is truncated: {size} of {whole} bytes are there")
    if size > whole:
        return Fault(f"is damaged: its header describes {whole} bytes, {size} are there")
    return None


def _zip_fault(path: Path, size: int) -> Fault | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
            small = pickles and archive.getinfo(pickles[0]).file_size < _LARGEST_HEADER
            data = archive.read(pickles[0]) if small else b""
    except Exception as error:  # zipfile meets damage with many kinds of error
        if "not a zip file" in str(error):  # the directory at its end is not there
            return Fault(f"is truncated: a file of torch.save without its end, {size} bytes are there")
        return Fault("is damaged: the zip of torch.save cannot be read")
    if not pickles:
        return Fault(f"is a zip archive of {', '.join(names[:3]) or 'nothing'}", _UNPACK)
    if any(name.endswith("/constants.pkl") for name in names):
        return Fault("is a program of TorchScript", "save the state_dict of its module, and pass that")
    return next((Fault(*fault) for module, fault in _MODULES.items() if module in data), _protocol_fault(data))


def _pickle_fault(path: Path, size: int) -> Fault | None:
    start = first_bytes(path)
    if start.startswith(_LEGACY):  # only reading it shows whether it is whole
        return _protocol_fault(start)
    if any(whole.startswith(start) for whole in _LEGACY):
        return Fault(f"is truncated: the first {size} bytes of a file of torch.save")
    return Fault("is a pickle that torch.save did not write; it was not executed", "convert it where it was made")


def _protocol_fault(pickled: bytes) -> Fault | None:
    """The fault of a pickle in a newer protocol than torch reads without executing anything."""
    if pickled[:1] != b"\x80" or pickled[1:2] <= bytes([_NEWEST_PROTOCOL]):
        return None
    return Fault(
        f"is of torch.save with pickle_protocol {pickled[1]}, which can be read only by executing it",
        f"save it where it was made, as safetensors or with pickle_protocol at most {_NEWEST_PROTOCOL}",
    )
