"""README's table of results, from data/evaluate/metrics.json; `make readme` rewrites it."""

import re
from pathlib import Path

from filmstill.evaluate.metrics import read_metrics
from filmstill.evaluate.results_table import table_of

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)


def block() -> str:
    """Table, headline, drift and the note on times as Markdown."""
    metrics = read_metrics(ROOT / "data/evaluate/metrics.json")
    results = table_of(metrics)
    rows = [["", *results.columns], ["---"] + ["---:"] * len(results.columns), *results.rows(metrics)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    lines = "\n".join((results.headline(metrics), results.drift_line(metrics), results.timing_note))
    return f"\n{table}\n\n{lines}\n\n"


def filled(readme: str) -> str:
    """README with the table in its block."""
    return BLOCK.sub(lambda match: match.group(1) + block() + match.group(2), readme)


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(filled(path.read_text()))
