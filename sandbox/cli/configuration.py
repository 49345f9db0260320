"""`sandbox config`."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from sandbox.config import Loaded


def show_config(loaded: Loaded, *, as_json: bool) -> None:
    """Print every setting, its value and its origin."""
    rows = loaded.explain()
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    table = Table("setting", "value", "from", "meaning", box=None, header_style="bold")
    for row in rows:
        table.add_row(row.key, row.value, row.origin, row.meaning)
    Console(soft_wrap=False).print(table)
