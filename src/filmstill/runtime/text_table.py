"""Tables on a terminal of any width: no column is dropped and no word is cut.

A table wraps its cells between words where it is too wide, sets its columns closer together where even that does not
fit, and becomes one block of lines per row as a last resort.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

GAPS = (2, 1)  # spaces between two columns, the first that fits
PLAIN = str.maketrans({"–": "-", "×": "x", "…": "..."})  # for a terminal that is not UTF-8: the widths stay right


@dataclass
class TextTable:
    """A table that rich prints: `console.print(table)`. Cells are plain text.

    headings: of the columns; that of the first may be empty. left: headings of further columns that hold words, which
    are aligned to the left as the first column is.
    """

    title: str
    headings: list[str]
    left: tuple[str, ...] = ()
    rows: list[list[str]] = field(default_factory=list)
    bold: set[int] = field(default_factory=set)  # numbers of rows
    section_ends: set[int] = field(default_factory=set)  # numbers of rows that a rule follows

    def add(self, *cells: str, bold: bool = False, end_section: bool = False) -> None:
        """Append a row; missing cells at its end are empty."""
        self.bold |= {len(self.rows)} if bold else set()
        self.section_ends |= {len(self.rows)} if end_section else set()
        self.rows.append([cell for cell, _ in zip_longest(cells, self.headings, fillvalue="")])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text | Padding]:
        shown = self._translated() if options.ascii_only else self
        for gap in GAPS:
            if widths := shown._widths(options.max_width, gap):
                yield shown._as_table(widths, gap)
                return
        yield from shown._as_blocks()

    def _translated(self) -> "TextTable":
        """The table in characters that any encoding has."""
        rows = [[cell.translate(PLAIN) for cell in row] for row in self.rows]
        return TextTable(self.title.translate(PLAIN), self.headings, self.left, rows, self.bold, self.section_ends)

    def _widths(self, width: int, gap: int) -> list[int] | None:
        """Widths of the columns on a terminal of `width`, `gap` spaces between two; None if a word would be cut.

        A heading takes the width of its longest word; cells take one line, or are wrapped if there is too little space.
        """
        columns = list(zip(self.headings, *self.rows, strict=True))
        widths = [max(map(_longest_word, column)) for column in columns]
        space = width - sum(widths) - gap * (len(widths) - 1) - 2  # rich writes a space on either side
        if space < 0:
            return None
        for number, (_heading, *cells) in enumerate(columns):
            more = min(space, max([0, *(cell_len(cell) - widths[number] for cell in cells)]))
            widths[number] += more
            space -= more
        return widths

    def _as_table(self, widths: list[int], gap: int) -> Table:
        title = Text(self.title, "italic") if self.title else None
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        table.padding = (0, gap - 1, 0, 0)  # rich writes one space more between columns
        for number, (heading, width) in enumerate(zip(self.headings, widths, strict=True)):
            justify = "left" if number == 0 or heading in self.left else "right"
            table.add_column(Text(heading), justify=justify, vertical="top", width=width)  # type: ignore[arg-type]
        for number, row in enumerate(self.rows):
            style = "bold" if number in self.bold else None
            table.add_row(*map(Text, row), style=style, end_section=number in self.section_ends)
        return table

    def _as_blocks(self) -> Iterator[Text | Padding]:
        """The title, then for every row its first cell and one line per further cell that is not empty."""
        if self.title:
            yield Text(self.title, "italic")
        for number, (name, *cells) in enumerate(self.rows):
            yield Text("")
            first = f"{self.headings[0]}: {name}" if self.headings[0] else name
            yield Text(first, "bold" if number in self.bold else "")
            for heading, cell in zip(self.headings[1:], cells, strict=True):
                if cell:
                    yield Padding(Text(f"{heading}: {cell}"), (0, 0, 0, 2), expand=False)


def _longest_word(text: str) -> int:
    """Width of the longest word in terminal cells."""
    return max(map(cell_len, text.split()), default=0)
