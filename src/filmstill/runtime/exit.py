"""Exit of a command: every expected failure becomes one line on stderr and an exit code."""

import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from filmstill.errors import FULL, FilmstillError, GateError, Interrupted, writing_failed
from filmstill.runtime.caches import use_writable_caches
from filmstill.runtime.logs import log_to_stderr

# Allocated containers before Python's garbage collector runs. The default of 700 is for small programs: the imports
# make a million containers that all stay, and scanning them repeatedly takes a sixth of a short stage's time. The
# higher threshold keeps no tensor alive, since a training step leaves none in a reference cycle.
COLLECT_AFTER = 50_000


def exit_code(action: Callable[[], None]) -> int:
    """Run `action` and return the exit code; an expected failure prints one line on stderr.

    0: success. 1: GateError. 2: FilmstillError or OSError. 128 + signal number: Interrupted. 130: Ctrl-C.
    """
    signal.signal(signal.SIGTERM, _stop)
    log_to_stderr()
    use_writable_caches()
    try:
        action()
        if sys.stdout:  # None if closed
            sys.stdout.flush()
    except GateError as error:
        return _report(error, 1)
    except Interrupted as error:
        return _report(error, 128 + error.signal)
    except FilmstillError as error:
        return _report(error, 2)
    except OSError as error:
        if error.errno in FULL:
            return _report(writing_failed(error.filename or "a file", error), 2)
        return _report(f"{error.filename or 'a file'}: {error.strerror or error}", 2)
    except KeyboardInterrupt:
        return _report("stopped by Ctrl-C; finished work is kept, run it again to resume", 130)
    return 0


def run_script(main: Callable[[], int]) -> NoReturn:
    """Run `main` and exit the process with its return value, skipping the interpreter's shutdown.

    With torch imported, the shutdown takes one to two seconds, and nothing here depends on it.
    """
    gc.set_threshold(COLLECT_AFTER)
    code = main()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with suppress(OSError):  # the reader exited, or the disk is full, which `exit_code` reported
            stream.flush()
    os._exit(code)


def _stop(number: int, _frame: object) -> None:
    raise Interrupted("stopped by SIGTERM; finished work is kept, run it again to resume", number)


def _report(message: object, code: int) -> int:
    print(f"filmstill: {message}", file=sys.stderr)
    return code
