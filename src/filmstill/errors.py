"""Errors with a message for the user, and the checks that raise them."""

import errno
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)  # no space left on the device; the user's quota is used up


class FilmstillError(Exception):
    """Bad input or a refused action. The message is one line: file or key, value, what is allowed.

    A command prints that line on stderr and exits with code 2, without a traceback.
    """


class GateError(FilmstillError):
    """A training stage ended below its quality gate; its work is kept. Exit code 1, since the input was valid."""


class Interrupted(Exception):
    """The process received `signal` (SIGTERM, SIGINT or SLURM's SIGUSR2); its work is saved and can be resumed."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def writing_failed(path: Path | str, error: OSError) -> FilmstillError:
    """FilmstillError for a write to `path` that failed with `error`."""
    if error.errno in FULL:
        return FilmstillError(f"{path}: disk full while writing; free some space and run again, finished work is kept")
    return FilmstillError(
        f"{path}: cannot be written ({error.strerror or error}); make the folder writable and run again"
    )


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise FilmstillError unless `condition` holds: "<key>: is <value>, allowed: <allowed>"."""
    if not condition:
        raise FilmstillError(f"{key}: is {value!r}, allowed: {allowed}")
