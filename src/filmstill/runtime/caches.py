"""Caches of libraries where the home folder cannot be written, as in a container with another user or a full quota."""

import os
import tempfile
from pathlib import Path

FOLDERS = {"MPLCONFIGDIR": "matplotlib", "TRITON_CACHE_DIR": "triton"}  # by variable, below the folder of caches


def use_writable_caches() -> None:
    """Point the libraries' caches to a temporary folder of this user where the usual one cannot be written.

    Without it matplotlib warns, and Triton fails. Libraries imported later and processes started later see it.
    """
    if _can_be_written(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")):
        return
    folder = Path(tempfile.gettempdir()) / f"filmstill-cache-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            folder = Path(tempfile.mkdtemp(prefix="filmstill-cache-"))
    except OSError:  # there is nowhere to write: the libraries are left to themselves
        return
    os.environ["XDG_CACHE_HOME"] = str(folder)
    for name, below in FOLDERS.items():
        os.environ.setdefault(name, str(folder / below))


def _can_be_written(folder: str) -> bool:
    """Whether a file can be written in `folder`, which is made where it is missing."""
    if not os.path.isabs(folder):  # the home folder is unknown
        return False
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b" ")
    except OSError:
        return False
    return True
