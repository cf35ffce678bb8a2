"""How a command runs and ends: every foreseen failure is one line on stderr and an exit code."""

import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from filmstill.errors import FULL, FilmstillError, GateError, Interrupted, writing_failed
from filmstill.runtime.logs import log_to_stderr

# Containers made before Python looks for cycles among them. Its own 700 is for small programs: imports make a million
# that all stay, and to look through them again and again takes a sixth of a short stage's time. No tensor waits for it:
# a step leaves none in a cycle.
COLLECT_AFTER = 50_000


def exit_code(action: Callable[[], None]) -> int:
    """Run `action`; every foreseen failure becomes one line on stderr and an exit code."""
    signal.signal(signal.SIGTERM, _stop)
    log_to_stderr()
    try:
        action()
        if sys.stdout:  # None where it is closed
            sys.stdout.flush()
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


def run_script(main: Callable[[], int]) -> NoReturn:
    """`main` is all that this process is for; it ends with the code that main returns.

    At once: with torch imported, Python takes a second or two to take itself apart, and nothing here waits for that.
    """
    gc.set_threshold(COLLECT_AFTER)
    code = main()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with suppress(OSError):  # who reads it has gone, or the disk is full: `exit_code` has said so
            stream.flush()
    os._exit(code)


def _stop(number: int, _frame: object) -> None:
    raise Interrupted("stopped by SIGTERM; finished work is kept, run it again to go on", number)


def _say(message: object, code: int) -> int:
    print(f"filmstill: {message}", file=sys.stderr)
    return code
