"""One arm of the samples: `python workflow/scripts/samples.py ARM OUT TURN` from the repository's root.

TURN is the file by which arms are timed one at a time; - in a job of SLURM's.
"""

import sys
from pathlib import Path

from filmstill.runtime.exit import exit_code, run_script
from filmstill.runtime.turns import shared_machine


def main() -> None:
    arm, out, turn = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    with shared_machine(None if turn == "-" else Path(turn)) as alone:
        from filmstill.evaluate.arms import make_arm  # with torch: seconds, which nobody's clock may count
        from filmstill.runtime.shard_process import inputs_unchanged

        with inputs_unchanged("samples", out):
            alone()
            make_arm(arm, out)


if __name__ == "__main__":
    run_script(lambda: exit_code(main))
