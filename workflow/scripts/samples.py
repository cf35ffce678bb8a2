"""One arm of the samples: `python workflow/scripts/samples.py ARM OUT` from the repository's root."""

import sys
from pathlib import Path

from filmstill.evaluate.arms import make_arm
from filmstill.runtime.stage import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(lambda: make_arm(sys.argv[1], Path(sys.argv[2]))))
