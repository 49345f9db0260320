"""What the commands of `sandbox token` do."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import closing
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from sandbox.audit import TokenEntry
from sandbox.cli.address import read_address
from sandbox.cli.wiring import administration, policy_set, state_dir
from sandbox.config import Settings
from sandbox.errors import InvalidRequest
from sandbox.policy.units import parse_duration
from sandbox.server.grants import LOCAL
from sandbox.server.tokens import rotate_token, server_token
from sandbox.server.tokenstore import TokenInfo, TokenStore

EVERY_POLICY = "*"
NEVER = "never"


def show(settings: Settings) -> None:
    """Print the local token, which is made if there is none yet."""
    print(server_token(settings, state_dir(settings)))


def rotate(settings: Settings) -> None:
    """Replace the local token and print the new one."""
    with administration(settings) as log:
        token = rotate_token(settings, state_dir(settings))
        log.record(TokenEntry(event="rotated", principal=LOCAL, token_id=LOCAL, by=_operator()))
    print(token)


def create(
    settings: Settings,
    principal: str,
    scopes: str,
    *,
    application: str,
    policies: str,
    expires: str,
    as_json: bool,
) -> None:
    """Make a token and print it; with ``as_json`` also what is known of it.

    Raises:
        InvalidRequest: Something about it is not acceptable; nothing was made.
        NotFound: There is no such policy.
    """
    lifetime_s = _lifetime_s(expires)
    named = _policies(settings, policies)
    folder = state_dir(settings)
    with administration(settings) as log, closing(TokenStore(folder)) as store:
        token, info = store.create(
            principal,
            _words(scopes),
            application=application,
            policies=named,
            lifetime_s=lifetime_s,
        )
        log.record(_entry("created", info))
    if as_json:
        print(json.dumps({"token": token, **asdict(info)}, indent=2))
        return
    address = read_address(folder)
    url = (address[0] if address else f"http://{settings.host}:{settings.port}") + "/mcp/v1"
    print(token)
    headers = {"Authorization": f"Bearer {token}"}
    servers = {"sandbox": {"type": "http", "url": url, "headers": headers}}
    lines = (
        "",
        f"  Token {info.token_id} of {info.principal}: {', '.join(info.scopes)}; policies: "
        f"{_named(info)}; {_until(info)}.",
        "  It is not kept and cannot be shown again.",
        "",
        "  Claude Code:",
        f"    claude mcp add --transport http sandbox {url} --header 'Authorization: Bearer "
        f"{token}'",
        "  VS Code (.vscode/mcp.json):",
        f"    {json.dumps({'servers': servers})}",
        "",
    )
    print("\n".join(lines), file=sys.stderr)


def print_list(settings: Settings, *, every: bool, as_json: bool) -> None:
    """Print the tokens; never their secrets."""
    now = time.time()
    with closing(TokenStore(state_dir(settings))) as store:
        found = [info for info in store.list() if every or info.is_valid(now)]
    if as_json:
        print(json.dumps([asdict(info) for info in found], indent=2))
        return
    table = Table(box=None, header_style="bold")
    table.add_column("id", no_wrap=True)
    for title in ("application", "principal", "scopes", "policies"):
        table.add_column(title, overflow="fold")
    for title in ("created", "expires", "last used"):
        table.add_column(title)
    table.add_row(LOCAL, "whoever may read the state folder", LOCAL, "all", "all", "", "never", "")
    for info in found:
        table.add_row(
            info.token_id,
            info.application,
            info.principal,
            ", ".join(info.scopes),
            _named(info),
            _day(info.created_at),
            _until(info) if every else _day(info.expires_at),
            _day(info.last_used_at),
        )
    Console(soft_wrap=True, markup=False).print(table)


def revoke(settings: Settings, *, token_id: str, principal: str) -> None:
    """Revoke a token, or all of a principal.

    Raises:
        InvalidRequest: It is the local token, which can only be replaced.
        NotFound: There is no such token.
    """
    if token_id == LOCAL:
        raise InvalidRequest(
            "The local token cannot be revoked, only replaced.", remedy="`sandbox token rotate`."
        )
    with administration(settings) as log, closing(TokenStore(state_dir(settings))) as store:
        revoked = store.revoke(token_id=token_id, principal=principal)
        for info in revoked:
            log.record(_entry("revoked", info))
    for info in revoked:
        print(f"revoked {info.token_id} ({info.application or 'no name'}) of {info.principal}")
    if not revoked:
        print("It did not count any more." if token_id else "None of its tokens counted any more.")


def allow(settings: Settings, token_id: str) -> None:
    """Let an application call again.

    Raises:
        InvalidRequest: It is a token of our own.
        NotFound: There is no such application.
    """
    with administration(settings) as log, closing(TokenStore(state_dir(settings))) as store:
        info = store.allow(token_id)
        log.record(_entry("allowed", info))
    print(f"allowed {info.token_id} ({info.application or 'no name'}) of {info.principal}")


def _entry(event: str, info: TokenInfo) -> TokenEntry:
    """What is on record of a token."""
    told = f"{info.application or 'no name'}; {', '.join(info.scopes)}; policies: {_named(info)}"
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
    known = policy_set(settings)
    words = _words(text)
    if EVERY_POLICY in words:
        return None
    return [known.get(word).name for word in dict.fromkeys(words)] or [known.default]


def _lifetime_s(text: str) -> float | None:
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


def _day(at: float | None) -> str:
    return "never" if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _until(info: TokenInfo) -> str:
    if info.revoked_at is not None:
        return f"revoked {_day(info.revoked_at)}"
    return "never expires" if info.expires_at is None else f"expires {_day(info.expires_at)}"
