"""The machine a stage computes on, fixed where it changes the last bits."""

import torch

from filmstill.params.shared import Compute


def prepare(compute: Compute) -> None:
    """Set the number of threads and ask for deterministic kernels."""
    torch.set_num_threads(compute.threads)
    torch.use_deterministic_algorithms(True)
    # Filling fresh memory with NaN is a help in finding operators that read it, at 5 % of the time; none here does.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
