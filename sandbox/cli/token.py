"""`sandbox token`: who may use `sandbox serve`, and for what."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.options import Json, command, group
from sandbox.cli.tables import print_json
from sandbox.toolsets import TOOLSETS

if TYPE_CHECKING:
    from sandbox.audit import AuditLog, TokenEntry
    from sandbox.config import Settings
    from sandbox.server.tokens import TokenInfo, TokenStore

EVERY_POLICY = "*"
NEVER = "never"

app = group(
    "Tokens: who may use `sandbox serve`, and for what. They count, and stop counting, while "
    "the server runs."
)


@command(app, "state_dir", name="show")
def show_local(settings: Settings) -> None:
    """Print the local token, which may do everything, and nothing else."""
    from sandbox.cli.folders import state_dir
    from sandbox.server.localtoken import server_token

    print(server_token(settings, state_dir(settings)))


@command(app, "state_dir", name="rotate")
def rotate_local(settings: Settings) -> None:
    """Replace the local token by a new one, print it, and refuse the old one from now on."""
    from sandbox.audit import TokenEntry
    from sandbox.cli.folders import state_dir
    from sandbox.cli.wiring import administration
    from sandbox.server.grants import LOCAL
    from sandbox.server.localtoken import rotate_token

    with administration(settings) as log:
        token = rotate_token(settings, state_dir(settings))
        log.record(TokenEntry(event="rotated", principal=LOCAL, token_id=LOCAL, by=_operator()))
    print(token)


@command(app, "state_dir", name="create")
def create_token(
    settings: Settings,
    principal: Annotated[str, typer.Option(help="In whose name it acts.")],
    scopes: Annotated[
        str,
        typer.Option(
            help="What it may be used for, by comma: session, execute, terminal, files:read, "
            "files:write, notebooks, admin."
        ),
    ],
    application: Annotated[str, typer.Option(help="What is going to use it.")] = "",
    policies: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="The policies it may name, by comma, its default one first; `*`: all. Without, "
            "the server's default policy alone.",
        ),
    ] = "",
    tools: Annotated[
        str,
        typer.Option(
            metavar="SETS",
            help="What it offers over MCP, of what the server does, by comma: "
            f"{', '.join(TOOLSETS)}, or single tools. Without, all.",
        ),
    ] = "",
    expires: Annotated[
        str, typer.Option(metavar="SPAN", help="How long it counts: 30d, 12h, or never.")
    ] = "90d",
    as_json: Json = False,
) -> None:
    """Make a token and show it, once, with configuration to paste.

    [bold]sandbox token create --principal alice --scopes session,execute --expires 30d[/bold]

    [bold]sandbox token create --principal ci --scopes execute --tools code[/bold] · few tokens
    """
    from sandbox.cli.remote import read_address

    lifetime_s = _lifetime_s(expires)
    named = _policies(settings, policies)
    with _recorded_store(settings) as (log, store):
        token, info = store.create(
            principal,
            _words(scopes),
            application=application,
            policies=named,
            toolsets=_words(tools) or None,
            lifetime_s=lifetime_s,
        )
        log.record(_entry("created", info))
    if as_json:
        print_json({"token": token, **asdict(info)})
        return
    address = read_address(settings.state_dir)
    url = (address[0] if address else f"http://{settings.host}:{settings.port}") + "/mcp/v1"
    print(token)
    lines = (
        "",
        f"  Token {info.token_id} of {info.principal}: {', '.join(info.scopes)}; policies: "
        f"{_named(info)}; tools: {_offered(info)}; {_until(info)}.",
        "  It is not kept and cannot be shown again.",
        "",
        *configuration(url, token),
    )
    print("\n".join(lines), file=sys.stderr)


@command(app, "state_dir", name="list")
def list_tokens(
    settings: Settings,
    every: Annotated[bool, typer.Option("--all", help="Revoked and expired ones too.")] = False,
    as_json: Json = False,
) -> None:
    """List which applications have access, in whose name, to what, and when they last used it."""
    from rich.console import Console
    from rich.table import Table

    from sandbox.cli.folders import state_dir
    from sandbox.server.grants import LOCAL
    from sandbox.server.tokens import TokenStore

    now = time.time()
    with closing(TokenStore(state_dir(settings))) as store:
        found = [info for info in store.list() if every or info.is_valid(now)]
    if as_json:
        print_json([asdict(info) for info in found])
        return
    table = Table(box=None, header_style="bold")
    table.add_column("id", no_wrap=True)
    for title in ("application", "principal", "scopes", "policies", "tools"):
        table.add_column(title, overflow="fold")
    for title in ("created", "expires", "last used"):
        table.add_column(title)
    mine = (LOCAL, "whoever may read the state folder", LOCAL, "all", "all", "all")
    table.add_row(*mine, "", "never", "")
    for info in found:
        table.add_row(
            info.token_id,
            info.application,
            info.principal,
            ", ".join(info.scopes),
            _named(info),
            _offered(info),
            _day(info.created_at),
            _until(info) if every else _day(info.expires_at),
            _day(info.last_used_at),
        )
    Console(soft_wrap=True, markup=False).print(table)


@command(app, "state_dir", name="revoke")
def revoke_tokens(
    settings: Settings,
    token_id: Annotated[str, typer.Argument(metavar="[ID]")] = "",
    principal: Annotated[str, typer.Option(help="Revoke all of this principal.")] = "",
) -> None:
    """Take an application's access away, at once: its requests are refused and its streams cut.

    Sessions stay until they expire or are closed.

    [bold]sandbox token revoke 4f1c9a2b7d03[/bold]
    """
    from sandbox.errors import InvalidRequest
    from sandbox.server.grants import LOCAL

    if bool(token_id) == bool(principal):
        raise typer.BadParameter("give the id of a token, or --principal")
    if token_id == LOCAL:
        raise InvalidRequest(
            "The local token cannot be revoked, only replaced.", remedy="`sandbox token rotate`."
        )
    with _recorded_store(settings) as (log, store):
        revoked = store.revoke(token_id=token_id, principal=principal)
        for info in revoked:
            log.record(_entry("revoked", info))
    for info in revoked:
        print(f"revoked {info.token_id} ({info.application or 'no name'}) of {info.principal}")
    if not revoked:
        print("It did not count any more." if token_id else "None of its tokens counted any more.")


@command(app, "state_dir", name="allow")
def allow_application(
    settings: Settings, token_id: Annotated[str, typer.Argument(metavar="ID")]
) -> None:
    """Let an application call again whose access by an authorization server was revoked here."""
    with _recorded_store(settings) as (log, store):
        info = store.allow(token_id)
        log.record(_entry("allowed", info))
    print(f"allowed {info.token_id} ({info.application or 'no name'}) of {info.principal}")


def configuration(url: str, token: str) -> list[str]:
    """What to paste into a client's configuration so that it uses the server at ``url``."""
    headers = {"Authorization": f"Bearer {token}"}
    servers = {"sandbox": {"type": "http", "url": url, "headers": headers}}
    return [
        "  Claude Code:",
        f"    claude mcp add --transport http sandbox {url} "
        f"--header 'Authorization: Bearer {token}'",
        "  VS Code (.vscode/mcp.json):",
        f"    {json.dumps({'servers': servers})}",
        "",
    ]


@contextmanager
def _recorded_store(settings: Settings) -> Generator[tuple[AuditLog, TokenStore]]:
    """The tokens, and the audit log without which none of them may be changed."""
    from sandbox.cli.folders import state_dir
    from sandbox.cli.wiring import administration
    from sandbox.server.tokens import TokenStore

    with administration(settings) as log, closing(TokenStore(state_dir(settings))) as store:
        yield log, store


def _entry(event: str, info: TokenInfo) -> TokenEntry:
    """What is on record of a token."""
    from sandbox.audit import TokenEntry

    told = (
        f"{info.application or 'no name'}; {', '.join(info.scopes)}; policies: {_named(info)}; "
        f"tools: {_offered(info)}"
    )
    return TokenEntry(
        event=event,
        principal=info.principal,
        token_id=info.token_id,
        by=_operator(),
        reason=f"{told}; {_until(info)}" if event == "created" else told,
    )


def _operator() -> str:
    """Who runs the command."""
    return f"uid {os.geteuid()}"


def _words(text: str) -> list[str]:
    return [word for part in text.split(",") for word in part.split()]


def _policies(settings: Settings, text: str) -> list[str] | None:
    """The names of policies that there are; None for all."""
    from sandbox.cli.folders import policy_set

    known = policy_set(settings)
    words = _words(text)
    if EVERY_POLICY in words:
        return None
    return [known.get(word).name for word in dict.fromkeys(words)] or [known.default]


def _lifetime_s(text: str) -> float | None:
    from sandbox.errors import InvalidRequest
    from sandbox.policy.units import parse_duration

    if text == NEVER:
        return None
    try:
        lifetime_s = parse_duration(text)
    except ValueError:
        lifetime_s = 0
    if not lifetime_s:
        raise InvalidRequest(
            f"--expires: {text[:80]!r} is not a span of time.",
            remedy=f"Write 30d, 12h, 1d12h or {NEVER}.",
        )
    return lifetime_s


def _named(info: TokenInfo) -> str:
    return "all" if info.policies is None else ", ".join(info.policies)


def _offered(info: TokenInfo) -> str:
    return "all" if info.toolsets is None else ", ".join(info.toolsets)


def _day(at: float | None) -> str:
    return "never" if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _until(info: TokenInfo) -> str:
    if info.revoked_at is not None:
        return f"revoked {_day(info.revoked_at)}"
    return "never expires" if info.expires_at is None else f"expires {_day(info.expires_at)}"
