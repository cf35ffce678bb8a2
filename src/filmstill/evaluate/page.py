"""report.html: one page per run that opens offline. Images are data URIs, so nothing is fetched."""

import base64
import html
from pathlib import Path

from filmstill.evaluate.bench import Bench, Section
from filmstill.evaluate.metrics import MISSING, Metrics
from filmstill.evaluate.plots import save_plots
from filmstill.runtime.files import write_text

CSS = """
:root { color-scheme: light dark; --ink: #1b2026; --soft: #5b6470; --line: #dfe3e8; --page: #fdfdfc; --mark: #f3f1ea }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8edf3; --soft: #98a3b0; --line: #323943; --page: #12151a; --mark: #1e242c }
}
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 58rem;
       margin: 2.5rem auto; padding: 0 1.25rem }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .2rem 0 .6rem } h2 { font-size: 1.15rem; margin: 2.6rem 0 .6rem }
p { max-width: 44rem } .first, .note { color: var(--soft); font-size: .9rem } .lead { font-size: 1.15rem }
img { max-width: 100%; height: auto; border-radius: 8px; display: block }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .88rem; width: 100% }
th, td { padding: .42rem .6rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: baseline;
         font-variant-numeric: tabular-nums }
th { font-weight: 600; vertical-align: bottom } th:first-child, td:first-child { text-align: left; min-width: 9rem }
tr.mark td { background: var(--mark); font-weight: 600 }
small { display: block; color: var(--soft); font-weight: 400; white-space: nowrap }
"""


def write_report(bench: Bench, metrics: Metrics, folder: Path) -> None:
    """Write plots/*.png and report.html into `folder`; the page shows its sheet.gif and stream.gif if they exist."""
    save_plots(bench.draw, metrics, folder / "plots")
    write_text(folder / "report.html", page(bench, metrics, folder))


def page(bench: Bench, metrics: Metrics, folder: Path) -> str:
    """The page as HTML, with the pictures in `folder`: sheet.gif, stream.gif and those in plots."""
    table, sheet, stream = bench.table, folder / "sheet.gif", folder / "stream.gif"
    sections = [
        table_of(["arm", *table.columns], table.rows(metrics), marked=table.arms.index("student")),
        f'<p class="note">{html.escape(table.timing_note)}</p>' if table.timing_note else "",
        *(f"<p>{html.escape(line, quote=False)}</p>" for line in table.lines(metrics)),
        "<h2>Side by side</h2><p>Same prompts, same seeds, every arm.</p>" + image(sheet, "clips by arm"),
        "<h2>Long streams</h2><p>The student's.</p>" + image(stream, "long streams of the student"),
        *(section_of(section, folder) for section in bench.page_sections(metrics)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>filmstill: {bench.page_title}</title>'
        f'<style>{CSS}</style></head>\n<body>\n<p class="first">{bench.page_warning}</p>\n'
        f'<h1>Teacher to streaming student</h1>\n<p class="lead">{html.escape(table.headline(metrics))}</p>\n'
        f'<p class="note">{html.escape(bench.page_note(metrics))}</p>\n' + "\n".join(sections) + "\n</body></html>\n"
    )


def section_of(section: Section, folder: Path) -> str:
    """A section as HTML."""
    start = f"<h2>{section.heading}</h2>"
    if section.text:
        start += f"<p>{html.escape(section.text, quote=False)}</p>\n"
    parts = []
    if section.table:
        parts.append(table_of(*section.table))
    if section.plot:
        name, caption = section.plot
        parts.append(image(folder / f"plots/{name}.png", caption))
    if section.gif:
        name, caption = section.gif
        parts.append(image(folder / f"plots/{name}.gif", caption))
    return start + "\n".join(parts)


def table_of(heading: list[str], rows: list[list[str]], marked: int | None = None) -> str:
    """An HTML table with one row highlighted; text after a line break in a cell becomes small print."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heading)
    body = []
    for index, row in enumerate(rows):
        cells = ""
        for cell in row:
            text, _, small = html.escape(cell).partition("\n")
            cells += f"<td>{text}" + (f"<small>{small}</small>" if small else "") + "</td>"
        body.append(f'<tr class="mark">{cells}</tr>' if index == marked else f"<tr>{cells}</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(body)}</table></div>'


def image(path: Path, caption: str) -> str:
    """A picture as a data URI; a dash if the file does not exist."""
    if not path.is_file():
        return f"<p>{MISSING}</p>"
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<p><img alt="{html.escape(caption)}" src="data:image/{path.suffix[1:]};base64,{data}"></p>'
