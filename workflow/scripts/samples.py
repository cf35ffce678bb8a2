"""One arm of the samples: `python workflow/scripts/samples.py ARM OUT` from the repository's root."""

import sys
from pathlib import Path

from filmstill.evaluate.arms import make_arm
from filmstill.runtime.exit import exit_code
from filmstill.runtime.fanout import inputs_unchanged


def main() -> None:
    out = Path(sys.argv[2])
    with inputs_unchanged("samples", out):
        make_arm(sys.argv[1], out)


if __name__ == "__main__":
    sys.exit(exit_code(main))
