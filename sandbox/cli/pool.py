"""`sandbox pool`: the sandboxes that the running server of this state folder keeps ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox.cli.tables import print_json, print_table

if TYPE_CHECKING:
    from sandbox.config import Settings


def look(settings: Settings, *, as_json: bool) -> None:
    """Print what is ready, coming and wanted, by policy."""
    from sandbox.cli.remote import Remote

    shelves = Remote(settings).call("GET", "admin", "pool")["policies"]
    if as_json:
        print_json(shelves)
        return
    if not shelves:
        print("No policy keeps sandboxes ready: `pool: {min: 1, max: 4}` in a policy does.")
        return
    titles = ("policy", "ready", "coming", "target", "min", "max", "given", "missed", "problem")
    print_table(titles, [tuple(str(shelf[title]) for title in titles) for shelf in shelves])
