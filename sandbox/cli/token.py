"""`sandbox token`: what its commands are called and what their help teaches."""

from __future__ import annotations

from typing import Annotated

import typer

from sandbox.cli import options

app = typer.Typer(
    help="Tokens: who may use `sandbox serve`, and for what. They count, and stop counting, while "
    "the server runs.",
    no_args_is_help=True,
)


@app.command()
def show(config: options.ConfigFile = None, state_dir: options.StateDir = None) -> None:
    """Print the local token, which may do everything, and nothing else."""
    from sandbox.cli import tokens

    tokens.show(options.settings(config, state_dir=state_dir).settings)


@app.command()
def rotate(config: options.ConfigFile = None, state_dir: options.StateDir = None) -> None:
    """Replace the local token by a new one, print it, and refuse the old one from now on."""
    from sandbox.cli import tokens

    tokens.rotate(options.settings(config, state_dir=state_dir).settings)


@app.command()
def create(
    principal: Annotated[str, typer.Option(help="In whose name it acts.")],
    scopes: Annotated[
        str,
        typer.Option(
            help="What it may be used for, by comma: session, execute, terminal, files:read, "
            "files:write, notebooks, admin."
        ),
    ],
    application: Annotated[str, typer.Option(help="What is going to use it.")] = "",
    policies_named: Annotated[
        str,
        typer.Option(
            "--policies",
            metavar="NAMES",
            help="The policies it may name, by comma, its default one first; `*`: all. Without, "
            "the server's default policy alone.",
        ),
    ] = "",
    expires: Annotated[
        str, typer.Option(metavar="SPAN", help="How long it counts: 30d, 12h, or never.")
    ] = "90d",
    as_json: options.Json = False,
    config: options.ConfigFile = None,
    state_dir: options.StateDir = None,
) -> None:
    """Make a token and show it, once, with configuration to paste.

    [bold]sandbox token create --principal alice --scopes session,execute --expires 30d[/bold]
    """
    from sandbox.cli import tokens

    tokens.create(
        options.settings(config, state_dir=state_dir).settings,
        principal,
        scopes,
        application=application,
        policies=policies_named,
        expires=expires,
        as_json=as_json,
    )


@app.command(name="list")
def list_(
    every: Annotated[bool, typer.Option("--all", help="Revoked and expired ones too.")] = False,
    as_json: options.Json = False,
    config: options.ConfigFile = None,
    state_dir: options.StateDir = None,
) -> None:
    """List which applications have access, in whose name, to what, and when they last used it."""
    from sandbox.cli import tokens

    tokens.print_list(
        options.settings(config, state_dir=state_dir).settings, every=every, as_json=as_json
    )


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="[ID]")] = "",
    principal: Annotated[str, typer.Option(help="Revoke all of this principal.")] = "",
    config: options.ConfigFile = None,
    state_dir: options.StateDir = None,
) -> None:
    """Take an application's access away, at once: its requests are refused and its streams cut.

    Sessions stay until they expire or are closed.

    [bold]sandbox token revoke 4f1c9a2b7d03[/bold]
    """
    from sandbox.cli import tokens

    if bool(token_id) == bool(principal):
        raise typer.BadParameter("give the id of a token, or --principal")
    tokens.revoke(
        options.settings(config, state_dir=state_dir).settings,
        token_id=token_id,
        principal=principal,
    )


@app.command()
def allow(
    token_id: Annotated[str, typer.Argument(metavar="ID")],
    config: options.ConfigFile = None,
    state_dir: options.StateDir = None,
) -> None:
    """Let an application call again whose access by an authorization server was revoked here."""
    from sandbox.cli import tokens

    tokens.allow(options.settings(config, state_dir=state_dir).settings, token_id)
