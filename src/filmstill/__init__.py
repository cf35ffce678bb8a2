"""filmstill distils a bidirectional video diffusion teacher into a causal student that streams.

This file runs first in every command, stage and shard, and must run in any Python 3: it imports the standard library
only, and refuses an interpreter that lacks what the others import, such as the system's where .venv is not activated.
"""

import importlib.util
import sys
import time

# Time of this process's first filmstill import, in seconds since the epoch. A source file modified later may differ
# from the code that this process runs.
BEGAN = time.time()

PYTHON = (3, 11)  # as in pyproject.toml
NEEDED = ("numpy", "omegaconf", "psutil", "rich", "safetensors", "torch", "tqdm", "yaml")  # by every stage

_missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if sys.version_info < PYTHON or _missing:
    _why = "has no " + ", ".join(_missing) if _missing else "is older than Python 3.11"
    print(
        "filmstill: " + sys.executable + ": " + _why + ": it is not this project's environment; run "
        "`source .venv/bin/activate` first, or `make repro`, which makes .venv and runs all",
        file=sys.stderr,
    )
    sys.exit(2)
