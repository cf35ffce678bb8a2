"""The one kind of error a user is meant to read."""

import errno
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)  # no space left, or none left to this user


class FilmstillError(Exception):
    """Bad input or a refused action: one line that names the file or key, the value and what is allowed.

    Commands turn it into that line on stderr and exit code 2, never into a traceback.
    """


class GateError(FilmstillError):
    """A training stage ended below its gate; the work is kept (exit code 1: the input was fine)."""


class Interrupted(Exception):
    """Told to stop by `signal` (SIGTERM, SIGINT, a cluster's SIGUSR2); the work is saved and goes on from there."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def writing_failed(path: Path | str, error: OSError) -> FilmstillError:
    """The one line for a write that the system refused."""
    if error.errno in FULL:
        return FilmstillError(f"{path}: disk full while writing; free some space and run again, finished work is kept")
    return FilmstillError(
        f"{path}: cannot be written ({error.strerror or error}); make the folder writable and run again"
    )


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise FilmstillError with the one line for a value that is not allowed."""
    if not condition:
        raise FilmstillError(f"{key}: is {value!r}, allowed: {allowed}")
