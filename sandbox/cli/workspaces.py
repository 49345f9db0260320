"""`sandbox workspaces`: the named workspaces of the running server of this state folder."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.options import Json, command, group
from sandbox.cli.sessions import span
from sandbox.cli.tables import print_json, print_table

if TYPE_CHECKING:
    from sandbox.config import Settings

app = group("Look at and delete the named workspaces of the running `sandbox serve`.")


@command(app, "state_dir", name="list")
def list_workspaces(settings: Settings, as_json: Json = False) -> None:
    """List your named workspaces: size, last save, and the session that has each."""
    from sandbox.cli.remote import Remote

    found = Remote(settings).call("GET", "workspaces")["workspaces"]
    if as_json:
        print_json(found)
    elif not found:
        print("There is no workspace.")
    else:
        rows: list[tuple[str, ...]] = []
        for info in found:
            saved_at = info["saved_at"]
            saved = "never" if saved_at is None else f"{span(time.time() - saved_at)} ago"
            rows.append((info["name"], f"{info['size_bytes']:,}", saved, info["session_id"]))
        print_table(("workspace", "bytes", "saved", "session"), rows)


@command(app, "state_dir", name="delete")
def delete_workspaces(
    settings: Settings, names: Annotated[list[str], typer.Argument(metavar="NAME...")]
) -> None:
    """Delete workspaces with all files that were kept in them; not while a session has one."""
    from sandbox.cli.remote import Remote

    remote = Remote(settings)
    for name in names:
        remote.call("DELETE", "workspaces", name)
        print(f"deleted {name}")
