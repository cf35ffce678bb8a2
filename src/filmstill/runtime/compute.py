"""The machine a stage computes on, fixed where it changes the last bits, and kept from needless work."""

import ctypes
from contextlib import suppress

import torch

from filmstill.errors import FilmstillError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_THRESHOLD = 32 * 2**20  # bytes; mallopt takes no more


def prepare(device: str, threads: int) -> None:
    """Set the number of threads, ask for deterministic kernels on the CPU, keep freed memory."""
    check_device(device, "compute.device")
    torch.set_num_threads(threads)
    if device == "cuda":
        return
    # The same switch as use_deterministic_algorithms(True), which would import the compiler too: a second a process.
    torch.set_deterministic_debug_mode("error")
    # Filling fresh memory with NaN helps to find operators that read it, and writes every byte twice; none here does.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    _keep_freed_memory()


def check_device(device: str, key: str) -> None:
    """Refuse a GPU where torch sees none; `key` is where it was asked for."""
    if device == "cuda" and not torch.cuda.is_available():
        raise FilmstillError(f"{key}: is 'cuda', but torch sees no CUDA device here; use a machine with a GPU, or cpu")


def _keep_freed_memory() -> None:
    """A step frees what the next one asks for again: given back to the system, it costs a fault a page."""
    with suppress(AttributeError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, -1)  # never
