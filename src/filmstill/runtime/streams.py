"""stdout and stderr of a process: no character, closed stream or departed reader stops its work."""

import io
import os
import sys
from typing import Any


class _Descriptor(io.FileIO):
    """An open file descriptor that drops what the reader of a pipe no longer takes (`| head -1`)."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


class _Unbuffered(io.BufferedWriter):
    """A buffer that writes everything through, partial writes included: output before a crash is not lost."""

    def write(self, data: Any, /) -> int:
        written = super().write(data)
        self.flush()
        return written


def set_up_streams() -> None:
    r"""Replace sys.stdout and sys.stderr by streams that never refuse a text.

    A character that the terminal's encoding lacks is written as \u2713 or \udcff. A closed stream becomes os.devnull,
    so that no other file gets its descriptor. A full disk still raises OSError. PYTHONUNBUFFERED and `python -u` hold.
    """
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", errors="backslashreplace"))  # noqa: SIM115 (never closed)
            continue
        stream.flush()
        lines, through = stream.line_buffering, stream.write_through
        buffer = (_Unbuffered if through else io.BufferedWriter)(_Descriptor(number, "w", closefd=False))
        text = io.TextIOWrapper(buffer, stream.encoding, "backslashreplace", None, lines, through)
        setattr(sys, name, text)
