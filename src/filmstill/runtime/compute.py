"""The machine a stage computes on, fixed where it changes the last bits, and kept from needless work."""

import ctypes
from contextlib import suppress

import torch

from filmstill.params.shared import Compute

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_THRESHOLD = 32 * 2**20  # bytes; mallopt takes no more


def prepare(compute: Compute) -> None:
    """Set the number of threads, ask for deterministic kernels, keep freed memory."""
    torch.set_num_threads(compute.threads)
    torch.use_deterministic_algorithms(True)
    # Filling fresh memory with NaN is a help in finding operators that read it, at 5 % of the time; none here does.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """A step frees what the next one asks for again: given back to the system, it costs a fault a page."""
    with suppress(AttributeError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, -1)  # never
