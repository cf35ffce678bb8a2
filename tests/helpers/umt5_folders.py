"""The tiny text encoder: released, imported and opened."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from filmstill.formats.umt5 import import_umt5
from filmstill.models.umt5 import Umt5
from tiny_umt5 import WAN_FILE, write_encoder, write_tokenizer

CPU = torch.device("cpu")
TEXT_LEN = 48
PROMPTS = ["a red star bobs up and down", "", "blue 7", "a " * 30 + "zebra", "symbols & Zürich"]


def release(folder: Path) -> Path:
    """Write both released layouts of the same weights, and the tokenizer at Wan's path; returns `folder`."""
    write_tokenizer(folder / "google/umt5-xxl/tokenizer.json", [*PROMPTS[0].split(), "blue", "symbols"])
    write_encoder(folder / WAN_FILE, "wan", seed=0)
    write_encoder(folder / "text_encoder", "diffusers", seed=0)
    return folder


def imported(released: Path, folder: Path, source: str = WAN_FILE, text_len: int = TEXT_LEN) -> Path:
    """Import a released layout into `folder`; returns `folder`."""
    import_umt5(released / source, released / "google/umt5-xxl", folder, text_len)
    return folder


def opened(folder: Path, cache: Path, placement: str = "cpu", dtype: torch.dtype = torch.float32) -> Umt5:
    """The encoder of an imported folder, on the CPU."""
    return Umt5.load(folder, cache, placement, CPU, dtype)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the block with one torch thread, which is faster for such small matrices and fixes the bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
