"""Log lines on stderr: everything a command says that is not its output.

Modules log by `logging.getLogger(__name__)`; commands, stages and jobs call `log_to_stderr` once.
"""

import logging
import sys


class _AboveTheBar(logging.Handler):
    """Writes a line to stderr, above a progress bar where one is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm  # here: most commands log nothing

        if sys.stderr:  # None where it is closed
            tqdm.write(self.format(record), file=sys.stderr)


class _Formatter(logging.Formatter):
    """The message; a warning says that it is one."""

    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record)
        return f"warning: {message}" if record.levelno == logging.WARNING else message


def log_to_stderr() -> None:
    """Send filmstill's log, from level INFO on, to stderr."""
    logger = logging.getLogger("filmstill")
    if not logger.handlers:
        handler = _AboveTheBar()
        handler.setFormatter(_Formatter())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
