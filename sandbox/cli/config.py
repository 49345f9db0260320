"""`sandbox config`: the settings, and where each of them comes from."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from sandbox.cli.options import Json, command, group
from sandbox.cli.tables import print_json, print_table

if TYPE_CHECKING:
    from sandbox.config import Loaded

app = group("Look at the settings.")


@command(app, "state_dir", name="show")
def show_settings(loaded: Loaded, as_json: Json = False) -> None:
    """Show every setting with its value and where that came from.

    The file is weaker than the environment (SANDBOX_PORT=…), and that than flags (--port).
    """
    settings = loaded.explain()
    if as_json:
        print_json([asdict(each) for each in settings])
        return
    rows = [(each.key, each.value, each.origin, each.meaning) for each in settings]
    print_table(("setting", "value", "from", "meaning"), rows, wraps=True)
