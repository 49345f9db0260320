"""Results on a person's terminal as a table, or as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

LONGEST_LINE = 10_000


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=2))


def print_table(
    titles: Sequence[str], rows: Iterable[Sequence[str | Text]], *, wraps: bool = False
) -> None:
    """Print rows below titles, if there are any, in long lines unless it wraps them."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*titles, box=None, header_style="bold", show_header=bool(titles))
    for row in rows:
        table.add_row(*row)
    # Where lines may be long, no column is cut, such as an id that is to be copied.
    Console(width=None if wraps else LONGEST_LINE, soft_wrap=not wraps, markup=False).print(table)
