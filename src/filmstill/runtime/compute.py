"""Settings of torch and malloc for one process: threads, deterministic CPU kernels, memory reuse."""

import ctypes
from contextlib import suppress

import torch

from filmstill.errors import FilmstillError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
LARGEST_THRESHOLD = 32 * 2**20  # bytes; mallopt refuses larger values


def prepare(device: str, threads: int, float32_matmul: str = "highest") -> None:
    """Set threads and float32 precision; on the CPU also allow only deterministic kernels and keep freed memory.

    Raises FilmstillError if `device` is "cuda" and torch sees no GPU.
    """
    check_device(device, "compute.device")
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(float32_matmul)
    if device == "cuda":
        return
    # The same switch as use_deterministic_algorithms(True), which would also import the compiler (one second).
    torch.set_deterministic_debug_mode("error")
    # Filling new tensors with NaN writes every byte twice. It only helps to find operators that read uninitialized
    # memory, and no operator used here does.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    _keep_freed_memory()


def check_device(device: str, key: str) -> None:
    """Raise FilmstillError if `device` is "cuda" and torch sees no GPU; `key` names the setting in the message."""
    if device == "cuda" and not torch.cuda.is_available():
        raise FilmstillError(f"{key}: is 'cuda', but torch sees no CUDA device here; use a machine with a GPU, or cpu")


def _keep_freed_memory() -> None:
    """Make malloc keep freed memory: the next step needs the same sizes, and every returned page costs a page fault."""
    with suppress(AttributeError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, -1)  # never
