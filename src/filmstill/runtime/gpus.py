"""Memory and peak speed of GPU models.

Memory is the total capacity that torch reports (its out-of-memory messages print it), which is less than the number in
the product's name. Speed is the peak of dense bfloat16 matrix products in the vendor's data sheet.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

GIB = 2.0**30


@dataclass(frozen=True)
class Gpu:
    """`memory` in bytes, `speed` in floating-point operations per second."""

    memory: float
    speed: float


GPUS = {
    "rtx4090-24gb": Gpu(23.5 * GIB, 165.2e12),  # Ada GPU architecture whitepaper, accumulated in float32
    "a100-40gb": Gpu(39.4 * GIB, 312e12),  # A100 data sheet
    "l40s-48gb": Gpu(44.4 * GIB, 362e12),  # L40S data sheet
    "a100-80gb": Gpu(79.1 * GIB, 312e12),  # A100 data sheet
    "h100-80gb": Gpu(79.1 * GIB, 989.4e12),  # H100 SXM data sheet: 1,979 with sparsity
    "h200-141gb": Gpu(139.8 * GIB, 989.4e12),  # H200 SXM data sheet: 1,979 with sparsity
    "b200-180gb": Gpu(178.3 * GIB, 2250e12),  # DGX B200 data sheet: eight GPUs, 36 PFLOP/s with sparsity
}


def speed_of(device: "torch.device") -> float | None:
    """Peak speed of a device in floating-point operations per second; None for a CPU or a GPU not in the table."""
    if device.type != "cuda":
        return None
    import torch

    words = torch.cuda.get_device_name(device).lower().replace("-", " ").split()
    return next((gpu.speed for kind, gpu in GPUS.items() if kind.split("-")[0].removeprefix("rtx") in words), None)
