"""Exit of a command: every expected failure becomes one line on stderr and an exit code."""

import gc
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from filmstill.errors import FULL, FilmstillError, GateError, Interrupted, writing_failed
from filmstill.runtime.caches import use_writable_caches
from filmstill.runtime.logs import log_to_stderr
from filmstill.runtime.streams import set_up_streams

# Allocated containers before Python's garbage collector runs. The default of 700 is for small programs: the imports
# make a million containers that all stay, and scanning them repeatedly takes a sixth of a short stage's time. The
# higher threshold keeps no tensor alive, since a training step leaves none in a reference cycle.
COLLECT_AFTER = 50_000
LINE_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # and other control characters
LESS_MEMORY = "finished work is kept; `python -m filmstill plan` shows what each stage takes, and what takes less"


def exit_code(action: Callable[[], None]) -> int:
    """Run `action` and return the exit code; an expected failure prints one line on stderr.

    0: success. 1: GateError. 2: FilmstillError, OSError, lack of memory. 128 + signal number: Interrupted. 130: Ctrl-C.
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
    except (MemoryError, RuntimeError) as error:
        if not _is_lack_of_memory(error):
            raise
        return _report(f"out of memory ({_short(error)}); {LESS_MEMORY}", 2)
    except KeyboardInterrupt:
        return _report("stopped by Ctrl-C; finished work is kept, run it again to resume", 130)
    return 0


def run_script(main: Callable[[], int]) -> NoReturn:
    """The body of every command and script: run `main` and exit with its return value, skipping Python's shutdown.

    With torch imported, the shutdown takes one to two seconds, and nothing here depends on it.
    """
    set_up_streams()
    gc.set_threshold(COLLECT_AFTER)
    try:
        code = main()
    except SystemExit as end:  # argparse has printed its help
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with suppress(OSError):  # the reader exited, or the disk is full, which `exit_code` reported
            stream.flush()
    os._exit(code)


def _stop(number: int, _frame: object) -> None:
    raise Interrupted("stopped by SIGTERM; finished work is kept, run it again to resume", number)


def _is_lack_of_memory(error: Exception) -> bool:
    """Whether Python, or torch on a CPU (a RuntimeError) or on a GPU (OutOfMemoryError), could not allocate memory."""
    return isinstance(error, MemoryError) or re.search("can't allocate memory|out of memory", str(error)) is not None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or "Python could not allocate"


def _report(message: object, code: int) -> int:
    """Print the message as one line; a control character, as a file's name may have, is written as \\n or \\x1b."""
    line = LINE_BREAKS.sub(lambda found: found[0].encode("unicode_escape").decode(), str(message))
    print(f"filmstill: {line}", file=sys.stderr)
    return code
