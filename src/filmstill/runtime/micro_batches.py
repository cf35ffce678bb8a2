"""Which samples of a batch a process takes at once."""

from filmstill.params.load import require


def micro_batches(batch: int, micro_batch: int | None, key: str, rank: int, processes: int) -> list[range]:
    """One process's samples of a batch, in parts whose gradients are added up: batch = part x processes x parts.

    micro_batch: samples a part; None: as many as make it one. key: what the batch is called in params.yaml, for the
    refusal of one that does not divide.
    """
    part = micro_batch or max(batch // processes, 1)
    many = f"{processes} process{'es' * (processes > 1)}"
    require(batch % (part * processes) == 0, key, batch, f"a multiple of {part} samples (compute.micro_batch) x {many}")
    return [range(start, start + part) for start in range(rank * part, batch, part * processes)]
