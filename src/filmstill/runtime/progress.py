"""Progress bars: redrawn on a terminal, a line now and then in a log file."""

import sys

from tqdm import tqdm

SECONDS_BETWEEN_LOG_LINES = 15


def progress(label: str, total: int, done: int = 0, unit: str = "step") -> tqdm:
    """A bar on stderr; use it as a context manager and call `update()`."""
    on_terminal = sys.stderr.isatty()
    interval = 0.2 if on_terminal else SECONDS_BETWEEN_LOG_LINES
    return tqdm(
        desc=f"{label:<10}", total=total, initial=done, unit=unit, mininterval=interval, dynamic_ncols=on_terminal
    )
