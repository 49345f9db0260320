"""The commands and what their help teaches."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sandbox.cli import exits, options, token
from sandbox.cli.audit import audit_app
from sandbox.cli.policy_commands import policy_app
from sandbox.cli.secrets import secret_app
from sandbox.errors import SandboxError

EPILOG = f"{exits.HELP} Every command explains itself with --help."

app = typer.Typer(
    name="sandbox",
    help="Run untrusted code in an isolated container for each session: over MCP, REST or right "
    "here.\n\n[bold]sandbox doctor[/bold] checks this machine, "
    "[bold]sandbox run -c 'print(6*7)'[/bold] runs a line of Python, "
    "[bold]sandbox serve[/bold] lets agents in.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
sessions_app = typer.Typer(
    help="Look at and close the sessions of the running `sandbox serve`.", no_args_is_help=True
)
workspaces_app = typer.Typer(
    help="Look at and delete the named workspaces of the running `sandbox serve`.",
    no_args_is_help=True,
)
image_app = typer.Typer(help="Build and list the images.", no_args_is_help=True)
config_app = typer.Typer(help="Look at the settings.", no_args_is_help=True)
app.add_typer(sessions_app, name="sessions")
app.add_typer(workspaces_app, name="workspaces")
app.add_typer(policy_app, name="policy")
app.add_typer(image_app, name="image")
app.add_typer(config_app, name="config")
app.add_typer(token.app, name="token")
app.add_typer(audit_app, name="audit")
app.add_typer(secret_app, name="secret")


Everybodys = Annotated[
    bool,
    typer.Option("--everybody", help="Of all principals: for whoever looks after the server."),
]


def run() -> None:
    """Run the command line; an error of ours ends it with its remedy and its exit code."""
    try:
        app()
    except SandboxError as exc:
        print(f"sandbox: {exc.message}", file=sys.stderr)
        if exc.remedy:
            print(f"         {exc.remedy}", file=sys.stderr)
        sys.exit(exits.exit_code(exc))
    except KeyboardInterrupt:
        sys.exit(exits.INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(exits.OK)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="The address to bind.")] = None,
    port: Annotated[int | None, typer.Option(help="The port to bind; 0: any free one.")] = None,
    allowed_hosts: Annotated[
        str | None,
        typer.Option("--allowed-hosts", metavar="NAMES", help="Host headers to serve, by comma."),
    ] = None,
    config: options.ConfigFile = None,
    state_dir: options.StateDir = None,
    engine: options.Engine = None,
    runtime: options.Runtime = None,
    policies: options.Policies = None,
    log_level: options.LogLevel = None,
) -> None:
    """Serve MCP and REST over HTTP, until Ctrl-C.

    The token that clients need is shown at the start, with configuration to paste. Sessions
    outlive the server: the next one takes them over.

    [bold]sandbox serve[/bold] · http://127.0.0.1:8000/mcp/v1

    [bold]sandbox serve --host 0.0.0.0 --allowed-hosts sandbox.example.org:8000[/bold]
    · for other machines, behind a proxy that speaks TLS
    """
    from sandbox.cli.serve import serve as start

    start(
        options.settings(
            config,
            host=host,
            port=port,
            allowed_hosts=allowed_hosts,
            state_dir=state_dir,
            engine=engine,
            runtime=runtime,
            policies=policies,
            log_level=log_level,
        ).settings
    )


@app.command()
def mcp(
    config: options.ConfigFile = None,
    state_dir: options.StateDir = None,
    engine: options.Engine = None,
    runtime: options.Runtime = None,
    policies: options.Policies = None,
    log_level: options.LogLevel = None,
) -> None:
    """Serve MCP over stdin and stdout, for desktop clients that start their servers.

    Its sessions are closed when the client goes. Claude Desktop, for example:
    {"mcpServers": {"sandbox": {"command": "sandbox", "args": ["mcp"]}}}
    """
    from sandbox.cli.stdio import serve_stdio

    serve_stdio(
        options.settings(
            config,
            state_dir=state_dir,
            engine=engine,
            runtime=runtime,
            policies=policies,
            log_level=log_level,
        ).settings
    )


@app.command()
def broker(
    socket: Annotated[
        Path, typer.Option(metavar="PATH", help="The Unix socket to listen at.")
    ] = Path("/run/sandbox/broker.sock"),
    allow_uid: Annotated[
        list[int] | None,
        typer.Option(min=0, help="A user who may connect, besides this one; may be repeated."),
    ] = None,
    config: options.ConfigFile = None,
    state_dir: options.StateDir = None,
    engine: options.Engine = None,
    runtime: options.Runtime = None,
    policies: options.Policies = None,
    log_level: options.LogLevel = None,
) -> None:
    """Hold the engine's socket for a controller that shall have neither it nor root.

    It makes the containers that its policies compile to, and starts, connects to, inspects and
    removes those alone. The controller needs the same policies and version.

    [bold]sandbox broker --socket /run/sandbox/broker.sock --allow-uid 10001[/bold]

    [bold]sandbox serve --engine broker:///run/sandbox/broker.sock[/bold] · as that user
    """
    from sandbox.cli.broker import run_broker

    run_broker(
        options.settings(
            config,
            state_dir=state_dir,
            engine=engine,
            runtime=runtime,
            policies=policies,
            log_level=log_level,
        ).settings,
        socket,
        allow_uid or [],
    )


@app.command(name="run")
def run_code(
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="A file of code; `-` reads stdin.")
    ] = None,
    code: Annotated[str | None, typer.Option("-c", metavar="CODE", help="The code itself.")] = None,
    policy: Annotated[str, typer.Option(help="The policy; empty: the default one.")] = "",
    kernel: Annotated[str, typer.Option(help="The kernel: python3, bash, …")] = "python3",
    timeout: Annotated[float, typer.Option(help="Seconds it may run; 0: the policy's.")] = 0,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to save pictures; else beside FILE.")
    ] = None,
    as_json: options.Json = False,
    config: options.ConfigFile = None,
    state_dir: options.StateDir = None,
    engine: options.Engine = None,
    runtime: options.Runtime = None,
    policies: options.Policies = None,
    log_level: options.LogLevel = "warning",
) -> None:
    """Run code in a sandbox of its own, which is gone afterwards.

    Outputs are printed as they come, pictures are saved beside FILE and named. The exit code is 0
    when the code ended well, 1 when it raised or died, 124 when its time was over.

    [bold]sandbox run -c 'print(sum(range(10)))'[/bold]

    [bold]sandbox run --policy datascience plot.py[/bold]

    [bold]echo 'uname -a' | sandbox run --kernel bash -[/bold]
    """
    from sandbox.cli.run import Work, run_work

    if (file is None) == (code is None):
        raise typer.BadParameter("give either FILE or -c CODE")
    loaded = options.settings(
        config,
        state_dir=state_dir,
        engine=engine,
        runtime=runtime,
        policies=policies,
        log_level=log_level,
    )
    work = Work.read(file, code, policy=policy, kernel=kernel, timeout_s=timeout, images=images)
    raise typer.Exit(run_work(loaded.settings, work, as_json=as_json))


@app.command()
def doctor(
    as_json: options.Json = False,
    config: options.ConfigFile = None,
    state_dir: options.StateDir = None,
    engine: options.Engine = None,
    runtime: options.Runtime = None,
    policies: options.Policies = None,
) -> None:
    """Say, line by line and with a remedy, whether this machine can run sandboxes.

    The exit code is 0 when it can, 1 when something must be done first.
    """
    from sandbox.cli.doctor import examine

    raise typer.Exit(
        examine(
            options.settings(
                config, state_dir=state_dir, engine=engine, runtime=runtime, policies=policies
            ).settings,
            as_json=as_json,
        )
    )


@app.command()
def verify(
    policy: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="The policy to prove; may be repeated. Else all."),
    ] = None,
    as_json: options.Json = False,
    config: options.ConfigFile = None,
    state_dir: options.StateDir = None,
    engine: options.Engine = None,
    runtime: options.Runtime = None,
    policies: options.Policies = None,
) -> None:
    """Prove that policies are enforced on this engine, and show the proof.

    For each policy a session is opened as for any caller, and closed. The table tells what the
    engine says that it applied, and what a probe inside found, mostly by trying to break it. The
    exit code is 0 when all is as the policies say, 1 when something is not or was not proved.

    [bold]sandbox verify[/bold] · every policy

    [bold]sandbox verify --policy offline --runtime runsc[/bold]
    """
    from sandbox.cli.verify import verify as prove

    loaded = options.settings(
        config, state_dir=state_dir, engine=engine, runtime=runtime, policies=policies
    )
    raise typer.Exit(prove(loaded.settings, policy or [], as_json=as_json))


@app.command()
def version() -> None:
    """Print the version."""
    from sandbox import __version__

    print(__version__)


@sessions_app.command("list")
def sessions_list(
    everybodys: Everybodys = False,
    as_json: options.Json = False,
    config: options.ConfigFile = None,
    state_dir: options.StateDir = None,
) -> None:
    """List your open sessions of the running server, or those of all its principals.

    [bold]sandbox sessions list --everybody[/bold]
    """
    from sandbox.cli import remote

    settings = options.settings(config, state_dir=state_dir).settings
    remote.list_sessions(settings, everybodys=everybodys, as_json=as_json)


@sessions_app.command("show")
def sessions_show(
    session_id: str, config: options.ConfigFile = None, state_dir: options.StateDir = None
) -> None:
    """Show all that is known of a session, as JSON."""
    from sandbox.cli import remote

    remote.show_session(options.settings(config, state_dir=state_dir).settings, session_id)


@sessions_app.command("close")
def sessions_close(
    session_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...")] = None,
    every: Annotated[bool, typer.Option("--all", help="Close all of yours.")] = False,
    everybodys: Everybodys = False,
    config: options.ConfigFile = None,
    state_dir: options.StateDir = None,
) -> None:
    """Close sessions: their containers and all that is in them are removed.

    [bold]sandbox sessions close --all[/bold]
    """
    from sandbox.cli import remote

    if bool(session_ids) == every or (every and everybodys):
        raise typer.BadParameter("give the ids of sessions, or --all for yours")
    settings = options.settings(config, state_dir=state_dir).settings
    remote.close_sessions(settings, session_ids or [], every=every, anybodys=everybodys)


@workspaces_app.command("list")
def workspaces_list(
    as_json: options.Json = False,
    config: options.ConfigFile = None,
    state_dir: options.StateDir = None,
) -> None:
    """List your named workspaces: size, last save, and the session that has each."""
    from sandbox.cli import remote

    remote.list_workspaces(options.settings(config, state_dir=state_dir).settings, as_json=as_json)


@workspaces_app.command("delete")
def workspaces_delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    config: options.ConfigFile = None,
    state_dir: options.StateDir = None,
) -> None:
    """Delete workspaces with all files that were kept in them; not while a session has one."""
    from sandbox.cli import remote

    remote.delete_workspaces(options.settings(config, state_dir=state_dir).settings, names)


@image_app.command("build")
def image_build(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None,
    force: Annotated[bool, typer.Option(help="Build again what is current.")] = False,
    ca_bundle: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificates to trust during the build.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every line.")] = False,
    config: options.ConfigFile = None,
    engine: options.Engine = None,
) -> None:
    """Build images on the engine; without a name, those that policies can name.

    An image that is current is left alone.

    [bold]sandbox image build datascience[/bold]
    """
    from sandbox.cli import recipes

    recipes.build_images(
        options.settings(config, engine=engine).settings,
        names or [],
        force=force,
        ca_bundle=ca_bundle,
        verbose=verbose,
    )


@image_app.command("list")
def image_list(config: options.ConfigFile = None, engine: options.Engine = None) -> None:
    """List the images and whether the engine has them as this version needs them."""
    from sandbox.cli import recipes

    recipes.list_images(options.settings(config, engine=engine).settings)


@config_app.command("show")
def config_show(
    as_json: options.Json = False,
    config: options.ConfigFile = None,
    state_dir: options.StateDir = None,
) -> None:
    """Show every setting with its value and where that came from.

    The file is weaker than the environment (SANDBOX_PORT=…), and that than flags (--port).
    """
    from sandbox.cli.configuration import show_config

    show_config(options.settings(config, state_dir=state_dir), as_json=as_json)
