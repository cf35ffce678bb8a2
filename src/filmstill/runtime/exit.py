"""How a command ends: every foreseen failure is one line on stderr and an exit code."""

import signal
import sys
from collections.abc import Callable

from filmstill.errors import FULL, FilmstillError, GateError, Interrupted, writing_failed


def exit_code(action: Callable[[], None]) -> int:
    """Run `action`; every foreseen failure becomes one line on stderr and an exit code."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        action()
    except GateError as error:
        return _say(error, 1)
    except Interrupted as error:
        return _say(error, 128 + error.signal)
    except FilmstillError as error:
        return _say(error, 2)
    except OSError as error:
        if error.errno in FULL:
            return _say(writing_failed(error.filename or "a file", error), 2)
        return _say(f"{error.filename or 'a file'}: {error.strerror or error}", 2)
    except KeyboardInterrupt:
        return _say("stopped by Ctrl-C; finished work is kept, run it again to go on", 130)
    return 0


def _stop(number: int, _frame: object) -> None:
    raise Interrupted("stopped by SIGTERM; finished work is kept, run it again to go on", number)


def _say(message: object, code: int) -> int:
    print(f"filmstill: {message}", file=sys.stderr)
    return code
