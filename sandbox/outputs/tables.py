"""A table as lines: its cells with bars between them, its middle left out when it is long."""

from __future__ import annotations

MAX_ROWS = 40
"""The rows that are shown: most of them the first ones."""
LAST_ROWS = 10
MAX_CELLS = 24
"""Of a row."""


class Table:
    """Rows of cells, which come one after the other."""

    def __init__(self) -> None:
        self._rows: list[list[str]] = []
        self._heads: list[bool] = []
        """Whether a row has no cell but those that name what is below."""
        self._cells = 0
        self._is_open = False

    def add_row(self) -> None:
        """Begin a row."""
        if self._rows and not self._cells:
            self._drop_empty()
        self._rows.append([])
        self._heads.append(True)
        self._cells = 0
        self._is_open = False

    def add_cell(self, *, is_head: bool = False) -> None:
        """Begin a cell of the last row."""
        if not self._rows:
            self.add_row()
        self._cells += 1
        self._is_open = True
        self._heads[-1] = self._heads[-1] and is_head
        if self._cells <= MAX_CELLS:
            self._rows[-1].append("")
        else:
            self._rows[-1][-1] = f"[… {self._cells - MAX_CELLS + 1:,} more …]"

    def write(self, text: str) -> None:
        """Put a text into the last cell, or, where there is none, in a row of its own."""
        if self._is_open:
            if self._cells <= MAX_CELLS:
                self._rows[-1][-1] = text
            self._is_open = False
        elif text:
            self.add_row()
            self.add_cell()
            self.write(text)

    def lines(self) -> list[str]:
        """A line for each row, with a rule below those that name the columns."""
        if self._rows and not self._cells:
            self._drop_empty()
        heads = 0
        while heads < min(len(self._heads), MAX_ROWS // 4) and self._heads[heads]:
            heads += 1
        lines = [" | ".join(cells).rstrip() for cells in self._rows]
        if len(lines) > MAX_ROWS:
            left_out = len(lines) - MAX_ROWS
            lines[MAX_ROWS - LAST_ROWS : -LAST_ROWS] = [f"[… {left_out:,} rows left out …]"]
        if 0 < heads < len(lines):
            lines.insert(heads, " | ".join("---" for _ in self._rows[heads - 1]))
        return lines

    def in_one_line(self) -> str:
        """The same where there is no room for lines."""
        return "; ".join(filter(None, map(str.strip, self.lines()[:MAX_ROWS])))

    def _drop_empty(self) -> None:
        self._rows.pop()
        self._heads.pop()
