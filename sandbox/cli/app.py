"""The command line: its groups of commands, and the commands that start a controller of their own.

What such a command does is in the module of its name, which is imported when it runs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli import (
    audit,
    config,
    exits,
    image,
    kernelspec,
    notebook,
    policy,
    secret,
    sessions,
    sessionuse,
    token,
    workspaces,
)
from sandbox.cli.options import CONTROLLER, Json, command
from sandbox.errors import SandboxError

if TYPE_CHECKING:
    from sandbox.config import Settings

EPILOG = f"{exits.HELP} Every command explains itself with --help."

app = typer.Typer(
    name="sandbox",
    help="Run untrusted code in an isolated container for each session: over MCP, REST or right "
    "here.\n\n[bold]sandbox doctor[/bold] checks this machine, "
    "[bold]sandbox run -c 'print(6*7)'[/bold] runs a line of Python, "
    "[bold]sandbox shell[/bold] opens a shell, "
    "[bold]sandbox serve[/bold] lets agents in. "
    "[bold]sandbox --install-completion[/bold] teaches your shell to complete all of it.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(notebook.app, name="notebook")
app.add_typer(kernelspec.app, name="kernelspec")
app.add_typer(sessions.app, name="sessions")
app.add_typer(workspaces.app, name="workspaces")
app.add_typer(policy.app, name="policy")
app.add_typer(image.app, name="image")
app.add_typer(config.app, name="config")
app.add_typer(token.app, name="token")
app.add_typer(audit.app, name="audit")
app.add_typer(secret.app, name="secret")


def run() -> None:
    """Run the command line; an error of ours ends it with its remedy and its exit code."""
    try:
        app(prog_name="sandbox")
    except SandboxError as exc:
        from sandbox.outputs.plain import plain

        # It may have words of others: of a build's programs, of a server, of a sandbox.
        print(f"sandbox: {plain(exc.message)}", file=sys.stderr)
        if exc.remedy:
            print(f"         {plain(exc.remedy)}", file=sys.stderr)
        sys.exit(exits.exit_code(exc))
    except KeyboardInterrupt:
        sys.exit(exits.INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(exits.OK)


@command(app, "state_dir", name="pool")
def look_at_pool(settings: Settings, as_json: Json = False) -> None:
    """Show the sandboxes that the running server keeps ready, by policy.

    A session that finds one is open in milliseconds; `missed` counts those that found none.
    `pool: {min: 1, max: 4}` in a policy says how many there may be.
    """
    from sandbox.cli.pool import look

    look(settings, as_json=as_json)


@command(app, "host", "port", "allowed_hosts", "tools", *CONTROLLER, "log_level")
def serve(settings: Settings) -> None:
    """Serve MCP and REST over HTTP, until Ctrl-C.

    The token that clients need is shown at the start, with configuration to paste. Sessions
    outlive the server: the next one takes them over.

    [bold]sandbox serve[/bold] · http://127.0.0.1:8000/mcp/v1

    [bold]sandbox serve --host 0.0.0.0 --allowed-hosts sandbox.example.org:8000[/bold]
    · for other machines, behind a proxy that speaks TLS

    [bold]sandbox serve --tools code,files[/bold] · few tools, which cost a model few tokens
    """
    from sandbox.cli.serve import serve as start

    start(settings)


@command(app, "tools", *CONTROLLER, "log_level")
def mcp(
    settings: Settings,
    attach: Annotated[
        bool, typer.Option("--attach", help="Keep the sessions for the next start with that NAME.")
    ] = False,
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="With --attach: whose sessions; else `default`.")
    ] = "",
) -> None:
    """Serve MCP over stdin and stdout, for desktop clients that start their servers.

    Its sessions are closed when the client goes. Claude Desktop, for example:
    {"mcpServers": {"sandbox": {"command": "sandbox", "args": ["mcp"]}}}

    [bold]sandbox mcp --attach[/bold] · for a client that starts its server anew for each call or
    each chat: the default session and all others wait for the next start, until they expire

    [bold]sandbox mcp --attach work[/bold] · the same, apart from those of other names; each name
    is for one process at a time
    """
    from sandbox.cli.mcp import serve_stdio

    if name and not attach:
        raise typer.BadParameter("a NAME goes with --attach")
    serve_stdio(settings, (name or "default") if attach else "")


@command(app, *CONTROLLER, "log_level")
def broker(
    settings: Settings,
    socket: Annotated[
        Path, typer.Option(metavar="PATH", help="The Unix socket to listen at.")
    ] = Path("/run/sandbox/broker.sock"),
    allow_uid: Annotated[
        list[int] | None,
        typer.Option(min=0, help="A user who may connect, besides this one; may be repeated."),
    ] = None,
) -> None:
    """Hold the engine's socket for a controller that shall have neither it nor root.

    It makes the containers that its policies compile to, and starts, connects to, inspects and
    removes those alone. The controller needs the same policies and version.

    [bold]sandbox broker --socket /run/sandbox/broker.sock --allow-uid 10001[/bold]

    [bold]sandbox serve --engine broker:///run/sandbox/broker.sock[/bold] · as that user
    """
    from sandbox.cli.broker import run_broker

    run_broker(settings, socket, allow_uid or [])


sessionuse.add_to(app)


@command(app, *CONTROLLER)
def doctor(settings: Settings, as_json: Json = False) -> None:
    """Say, line by line and with a remedy, whether this machine can run sandboxes.

    The exit code is 0 when it can, 1 when something must be done first.
    """
    from sandbox.cli.doctor import examine

    raise typer.Exit(examine(settings, as_json=as_json))


@command(app, *CONTROLLER)
def verify(
    settings: Settings,
    policy: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="The policy to prove; may be repeated. Else all."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Prove that policies are enforced on this engine, and show the proof.

    For each policy a session is opened as for any caller, and closed. The table tells what the
    engine says that it applied, and what a probe inside found, mostly by trying to break it. The
    exit code is 0 when all is as the policies say, 1 when something is not or was not proved.

    [bold]sandbox verify[/bold] · every policy

    [bold]sandbox verify --policy offline --runtime runsc[/bold]
    """
    from sandbox.cli.verify import verify as prove

    raise typer.Exit(prove(settings, policy or [], as_json=as_json))


@app.command()
def version() -> None:
    """Print the version."""
    from sandbox import __version__

    print(__version__)
