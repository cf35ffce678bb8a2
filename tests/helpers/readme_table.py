"""README's table of results, from data/evaluate/metrics.json; `make readme` rewrites it."""

import json
import re
from pathlib import Path

from filmstill.evaluate.results_table import COLUMNS, closing_rows, drift_line, headline

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)


def block() -> str:
    metrics = json.loads((ROOT / "data/evaluate/metrics.json").read_text())
    heading = ["", *COLUMNS]
    rows = [heading, ["---"] + ["---:"] * len(COLUMNS), *closing_rows(metrics)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"\n{table}\n\n{headline(metrics)}\n{drift_line(metrics)}\n\n"


def filled(readme: str) -> str:
    return BLOCK.sub(lambda match: match.group(1) + block() + match.group(2), readme)


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(filled(path.read_text()))
