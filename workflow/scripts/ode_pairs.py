"""One shard of ODE pairs: `python workflow/scripts/ode_pairs.py SHARD OUT` from the repository's root."""

import sys
from pathlib import Path

from filmstill.runtime.exit import exit_code, run_script
from filmstill.runtime.shard_process import inputs_unchanged


def main() -> None:
    out = Path(sys.argv[2])
    with inputs_unchanged("ode_pairs", out):
        from filmstill.distill.make_pairs import make_shard  # with torch: seconds, and a failure has its line

        make_shard(int(sys.argv[1]), out)


if __name__ == "__main__":
    run_script(lambda: exit_code(main))
