"""`sandbox sessions`: the sessions of the running server of this state folder."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandbox.cli import completion
from sandbox.cli.options import Json, command, group
from sandbox.cli.tables import print_json, print_table

if TYPE_CHECKING:
    from sandbox.config import Settings

app = group("Look at, export and close the sessions of the running `sandbox serve`.")

MAX_DOING = 40
"""Of a table's column; `show` has all of it."""

Everybodys = Annotated[
    bool, typer.Option("--everybody", help="Of all principals: for whoever looks after the server.")
]


@command(app, "state_dir", name="list")
def list_sessions(
    settings: Settings, everybodys: Everybodys = False, as_json: Json = False
) -> None:
    """List your open sessions of the running server, or those of all its principals.

    [bold]sandbox sessions list --everybody[/bold]
    """
    from sandbox.cli.remote import Remote

    remote = Remote(settings)
    path = ("admin", "sessions") if everybodys else ("sessions",)
    found = remote.call("GET", *path)["sessions"]
    if as_json:
        print_json(found)
    elif not found:
        print("No session is open.")
    else:
        now = time.time()
        owner = ["principal"] if everybodys else []
        rows = [
            (
                *(info[key] for key in owner),
                info["session_id"],
                info["name"],
                info["policy"],
                info["runtime"],
                _doing(info, now),
                str(len(info["kernels"])),
                span(now - info["created_at"]),
                span(info["idle_expires_at"] - now),
            )
            for info in found
        ]
        titles = ("session", "name", "policy", "runtime", "state", "kernels", "age", "ends in")
        print_table((*owner, *titles), rows)


@command(app, "state_dir", name="show")
def show_session(
    settings: Settings,
    session_id: Annotated[str, typer.Argument(autocompletion=completion.session_ids)],
) -> None:
    """Show all that is known of a session, as JSON."""
    from sandbox.cli.remote import Remote

    print_json(Remote(settings).call("GET", "sessions", session_id))


@command(app, "state_dir", name="fork")
def fork_session(
    settings: Settings,
    session_id: Annotated[str, typer.Argument(autocompletion=completion.session_ids)],
    name: Annotated[str, typer.Option("--name", help="A label for the forks.")] = "",
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=8, help="How many.")] = 1,
    as_json: Json = False,
) -> None:
    """Copy a session into containers of their own, with its files and Python variables.

    [bold]sandbox sessions fork ID -n 3[/bold]
    """
    from sandbox.cli.remote import Remote
    from sandbox.server.forks import fork_in_words, left_in_words
    from sandbox.sessions.forking import FORK_TIMEOUT_S, Fork

    found = Remote(settings).call(
        *("POST", "sessions", session_id, "fork"),
        body={"name": name, "count": count},
        timeout_s=FORK_TIMEOUT_S,
    )
    if as_json:
        print_json(found)
        return
    fork = Fork.model_validate(found)
    for each in fork.sessions:
        print(fork_in_words(each))
    print(left_in_words(fork))


@command(app, "state_dir", name="export")
def export_session(
    settings: Settings,
    session_id: Annotated[str, typer.Argument(autocompletion=completion.session_ids)],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Else ID.ipynb; `-` is stdout."),
    ] = None,
) -> None:
    """Write what a session ran, with its outputs, as a notebook that runs again.

    Works for a day after the session's end, too.

    [bold]sandbox sessions export ID -o analysis.ipynb[/bold]
    """
    from sandbox.cli.remote import Remote
    from sandbox.cli.wholefiles import check_target, write_whole
    from sandbox.notebooks.ipynb import read_ipynb, write_ipynb

    target = output or Path(f"{Path(session_id).name}.ipynb")
    if str(target) != "-":
        check_target(target)
    found = Remote(settings).call("GET", "sessions", session_id, "export")
    notebook = read_ipynb(json.dumps(found).encode()).notebook
    if str(target) == "-":
        print(write_ipynb(notebook).decode(), end="")
        return
    write_whole(target, write_ipynb(notebook))
    print(f"{len(notebook.cells)} cells: {target}")


@command(app, "state_dir", name="close")
def close_sessions(
    settings: Settings,
    session_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", autocompletion=completion.session_ids),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Close all of yours.")] = False,
    everybodys: Everybodys = False,
) -> None:
    """Close sessions: their containers and all that is in them are removed.

    [bold]sandbox sessions close --all[/bold]
    """
    from sandbox.cli.remote import Remote

    if bool(session_ids) == every or (every and everybodys):
        raise typer.BadParameter("give the ids of sessions, or --all for yours")
    remote = Remote(settings)
    if every:
        session_ids = [info["session_id"] for info in remote.call("GET", "sessions")["sessions"]]
    for session_id in session_ids or []:
        remote.call("DELETE", *(["admin"] if everybodys else []), "sessions", session_id)
        print(f"closed {session_id}")


def _doing(info: dict[str, Any], now: float) -> str:
    """Whether it is frozen, and since when, or what keeps it from that."""
    if info["frozen_since"] is not None:
        return f"frozen {span(now - info['frozen_since'])}"
    awake = info["awake_because"]
    return f"awake: {awake[0]}"[:MAX_DOING] if awake else "open"


def span(seconds: float) -> str:
    """A span of time in words, in the unit that says enough."""
    if seconds < 120:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
