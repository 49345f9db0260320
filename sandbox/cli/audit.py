"""`sandbox audit`: the commands and what their help teaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sandbox.cli.options import command, group

if TYPE_CHECKING:
    from sandbox.config import Settings

app = group(
    "Read and verify the audit log: who called what, in which session, under which policy, "
    "and what came of it.\n\nEvery controller writes one, into its slot of the state directory: "
    "[bold]serve[/bold], or [bold]stdio-1[/bold], [bold]run-1[/bold] and so on; what "
    "`sandbox token` does is in [bold]admin-1[/bold]. Without --slot all of them are read."
)

Slot = Annotated[
    str, typer.Option("--slot", metavar="NAME", help="One controller's log; empty: all of them.")
]


@command(app, "state_dir", name="tail")
def audit_tail(
    settings: Settings,
    number: Annotated[int, typer.Option("-n", metavar="N", min=0, help="How many lines.")] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The lines as they are stored.")] = False,
    slot: Slot = "",
) -> None:
    """Show the latest entries, oldest first, one in a line.

    Texts that came from callers or containers are shown escaped; digests are shortened.

    [bold]sandbox audit tail -n 50[/bold]

    [bold]sandbox audit tail --follow --json | jq 'select(.outcome != "ok")'[/bold]
    """
    from sandbox.cli import auditlogs

    auditlogs.tail(settings, slot, number, follow=follow, as_json=as_json)


@command(app, "state_dir", name="verify")
def audit_verify(
    settings: Settings,
    expect: Annotated[
        str,
        typer.Option(
            metavar="SEQ:HASH",
            help="A head that an earlier verify printed: the log must still hold it. With --slot.",
        ),
    ] = "",
    slot: Slot = "",
) -> None:
    """Check that no line was changed, removed, moved or added.

    Names the first wrong line of each log and why. The exit code is 0 when all logs are intact, 1
    when one is not. Whoever can write the files could also write a whole new log; keep the head
    that is printed somewhere else, and give it to --expect later, to find that as well.

    [bold]sandbox audit verify[/bold]

    [bold]sandbox audit verify --slot serve --expect 1204:9f86d0…[/bold]
    """
    from sandbox.cli import auditlogs

    raise typer.Exit(auditlogs.verify_logs(settings, slot, expect))


@command(app, "state_dir", name="export")
def audit_export(
    settings: Settings,
    since: Annotated[
        str,
        typer.Option(
            metavar="WHEN",
            help="Not before: 2026-11-24, 2026-11-24T18:30 (UTC unless it says otherwise), Unix "
            "time, or how long ago: 90m, 7d.",
        ),
    ] = "",
    until: Annotated[str, typer.Option(metavar="WHEN", help="Before this time.")] = "",
    principal: Annotated[str, typer.Option(metavar="NAME", help="Of this caller only.")] = "",
    session: Annotated[str, typer.Option(metavar="ID", help="About this session only.")] = "",
    form: Annotated[
        Literal["jsonl", "csv"],
        typer.Option("--format", help="jsonl: the lines as they are stored. csv: a table."),
    ] = "jsonl",
    slot: Slot = "",
) -> None:
    """Print entries for other programs, each log from its beginning.

    Lines that cannot be trusted are left out and named on standard error; the exit code is then 1.
    In a table, texts that a spreadsheet would take for formulas begin with an apostrophe.

    [bold]sandbox audit export --since 7d > week.jsonl[/bold]

    [bold]sandbox audit export --session SESSION_ID --format csv > session.csv[/bold]
    """
    from sandbox.cli import auditlogs

    wanted = auditlogs.Filter.of(since, until, principal, session)
    raise typer.Exit(auditlogs.export(settings, slot, wanted, form))
