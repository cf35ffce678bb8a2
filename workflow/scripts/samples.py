"""One arm of the samples: `python workflow/scripts/samples.py ARM OUT` from the repository's root."""

import sys
from pathlib import Path

from filmstill.runtime.exit import exit_code, leave
from filmstill.runtime.shard_process import inputs_unchanged, shared_machine


def main() -> None:
    out = Path(sys.argv[2])
    with shared_machine(out) as alone, inputs_unchanged("samples", out):
        from filmstill.evaluate.arms import make_arm  # with torch: seconds, which nobody's clock may count

        alone()
        make_arm(sys.argv[1], out)


if __name__ == "__main__":
    leave(exit_code(main))
