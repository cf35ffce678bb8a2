"""What processes of a stage leave to read."""

from pathlib import Path


def log_of(work: Path, shard: str) -> Path:
    """Of a shard's process."""
    return work / "logs" / f"{shard}.log"


def last_line(log: Path) -> str | None:
    """What a log ends with; None where there is none."""
    if not log.is_file():
        return None
    lines = last_lines(log, 1)
    return lines[0].removeprefix("filmstill: ") if lines else "no output"


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log that say anything; none where there is no log."""
    if not log.is_file():
        return []
    return [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-count:]
