"""One shard of ODE pairs: `python workflow/scripts/ode_pairs.py SHARD OUT` from the repository's root."""

import sys
from pathlib import Path

from filmstill.distill.make_pairs import make_shard
from filmstill.runtime.stage import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(lambda: make_shard(int(sys.argv[1]), Path(sys.argv[2]))))
