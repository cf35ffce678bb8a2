"""The one kind of error a user is meant to read."""


class FilmstillError(Exception):
    """Bad input or a refused action: one line that names the file or key, the value and what is allowed.

    Commands turn it into that line on stderr and exit code 2, never into a traceback.
    """


class GateError(FilmstillError):
    """A training stage ended below its gate; the work is kept (exit code 1: the input was fine)."""


class Interrupted(Exception):
    """Told to stop by `signal` (SIGTERM or SIGINT); the work is saved and goes on from there."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
