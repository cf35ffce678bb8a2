"""README's tables of results, from data/evaluate/metrics.json; `make readme` rewrites it."""

import re
from pathlib import Path

from filmstill.evaluate.metrics import read_metrics
from filmstill.evaluate.results_table import table_of

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)


def block() -> str:
    """All tables, the headline and the lines below as Markdown."""
    metrics = read_metrics(ROOT / "data/evaluate/metrics.json")
    results = table_of(metrics)
    tables = [markdown(["", *results.columns], results.rows(metrics))]
    tables += [markdown(heading, rows) for heading, rows in results.further(metrics)]
    lines = "\n".join((results.headline(metrics), *results.lines(metrics), results.timing_note))
    return "\n" + "\n\n".join((*tables, lines)) + "\n\n"


def markdown(heading: list[str], rows: list[list[str]]) -> str:
    """A table, its first column aligned to the left."""
    lines = [heading, ["---"] + ["---:"] * (len(heading) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def filled(readme: str) -> str:
    """README with the table in its block."""
    return BLOCK.sub(lambda match: match.group(1) + block() + match.group(2), readme)


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(filled(path.read_text()))
