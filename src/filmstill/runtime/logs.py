"""Logging to stderr: warnings and status of a command, as opposed to its output.

Modules use `logging.getLogger(__name__)`; commands, stages and jobs call `log_to_stderr` once.
"""

import logging
import sys
from typing import Any


class _AboveTheBar(logging.Handler):
    """Writes a line to stderr, above the progress bar if one is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        if not sys.stderr:  # None where it is closed
            return
        tqdm: Any = getattr(sys.modules.get("tqdm"), "tqdm", None)  # imported where a bar is drawn
        bar_is_open = bool(tqdm and getattr(tqdm, "_instances", None))
        if bar_is_open and sys.stderr.isatty():
            tqdm.write(self.format(record), file=sys.stderr)
        else:  # in a file tqdm.write would write the bar again for every line
            print("\n" * bar_is_open + self.format(record), file=sys.stderr, flush=True)


class _Formatter(logging.Formatter):
    """The bare message; warnings get the prefix "warning: "."""

    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record)
        return f"warning: {message}" if record.levelno == logging.WARNING else message


def log_to_stderr() -> None:
    """Send the log records of filmstill from level INFO to stderr; later calls have no effect."""
    logger = logging.getLogger("filmstill")
    if not logger.handlers:
        handler = _AboveTheBar()
        handler.setFormatter(_Formatter())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
