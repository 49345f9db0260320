"""What the shell offers at Tab: sessions of the running server, policies, places to copy."""

from __future__ import annotations

import os
from contextlib import suppress
from glob import escape, glob
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from sandbox.config import Settings


def sessions(ctx: typer.Context, incomplete: str) -> list[str]:
    """The ids and names of sessions that begin so."""
    found: list[str] = []
    for session_id, name in _sessions(ctx):
        found += [each for each in (session_id, name) if each and each.startswith(incomplete)]
    return found


def session_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """The ids of sessions that begin so."""
    return [each for each, _ in _sessions(ctx) if each.startswith(incomplete)]


def policies(ctx: typer.Context, incomplete: str) -> list[str]:
    """The policies that begin so, with what they are for."""
    from sandbox.errors import SandboxError

    with suppress(SandboxError, OSError):
        from sandbox.cli.folders import policy_set

        return [name for name in policy_set(_settings(ctx)).names() if name.startswith(incomplete)]
    return []


def places(ctx: typer.Context, incomplete: str) -> list[str]:
    """Files here, and sessions with a colon."""
    here = [f"{path}/" if os.path.isdir(path) else path for path in glob(f"{escape(incomplete)}*")]
    there = [f"{session_id}:" for session_id, _ in _sessions(ctx)]
    return [*(each for each in there if each.startswith(incomplete)), *sorted(here)]


def _sessions(ctx: typer.Context) -> list[tuple[str, str]]:
    from sandbox.errors import SandboxError

    with suppress(SandboxError, OSError):
        from sandbox.cli.remote import Remote

        found = Remote(_settings(ctx)).call("GET", "sessions")["sessions"]
        return [(str(each["session_id"]), str(each["name"])) for each in found]
    return []


def _settings(ctx: typer.Context) -> Settings:
    from sandbox.config import load

    flags = {name: ctx.params.get(name) for name in ("state_dir", "policies")}
    return load(ctx.params.get("config"), os.environ, flags).settings
