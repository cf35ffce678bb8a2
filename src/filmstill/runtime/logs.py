"""Logging to stderr: warnings and status of a command, as opposed to its output.

Modules use `logging.getLogger(__name__)`; commands, stages and jobs call `log_to_stderr` once.
"""

import logging
import sys


class _AboveTheBar(logging.Handler):
    """Writes a line to stderr, above the progress bar if one is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        if not sys.stderr:  # None where it is closed
            return
        if sys.stderr.isatty():
            from tqdm import tqdm  # here: most commands log nothing

            tqdm.write(self.format(record), file=sys.stderr)
        else:  # tqdm.write would write the bar again for every line
            print(self.format(record), file=sys.stderr, flush=True)


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
