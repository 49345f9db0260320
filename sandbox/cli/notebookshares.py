"""`sandbox notebook share` and `unshare`: one notebook of a session for who has no token."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import anyio

from sandbox.cli.restclient import RestClient
from sandbox.cli.tables import print_json
from sandbox.cli.targets import ControllerTarget, resolved
from sandbox.config import Settings
from sandbox.errors import InvalidRequest
from sandbox.policy.units import parse_duration


def share(
    settings: Settings,
    target: ControllerTarget,
    session: str,
    path: str,
    lifetime: str,
    *,
    edit: bool,
    name: str,
    as_json: bool,
) -> None:
    """Share a notebook and print its address.

    Raises:
        SandboxError: It cannot be shared.
    """
    try:
        lifetime_s = parse_duration(lifetime)
    except ValueError as exc:
        raise InvalidRequest(
            f"--for: {lifetime[:80]!r} is not a span of time.", remedy="Write 30m, 12h or 7d."
        ) from exc

    async def ask() -> None:
        async with target.client(settings) as client:
            there = await _place(client, session)
            wanted = {"path": path, "lifetime_s": lifetime_s, "edit": edit, "name": name}
            found = await client.call("POST", *there, body=wanted)
            # As this side reaches the server, which may stand behind a proxy.
            parts = urlsplit(str(found["url"]))
            url = f"{client.url}{parts.path}?{parts.query}"
            if as_json:
                print_json({**found, "url": url})
                return
            until = time.strftime("%Y-%m-%d %H:%M", time.localtime(found["expires_at"]))
            print(f"{url}\n")
            done = "edit" if edit else "read"
            print(f"To {done}, until {until}: `sandbox lab -`, then paste the URL.")
            print(f"`sandbox notebook unshare {there[1]} {found['token_id']}` takes it back.")

    anyio.run(ask)


def unshare(settings: Settings, target: ControllerTarget, session: str, share_id: str) -> None:
    """Take back a share of a session, or all of them.

    Raises:
        SandboxError: There is no such share.
    """

    async def ask() -> None:
        async with target.client(settings) as client:
            there = await _place(client, session)
            shares = (await client.call("GET", *there))["shares"]
            ids = [share_id] if share_id else [each["token_id"] for each in shares]
            for each in ids:
                found = await client.call("DELETE", *there, each)
                print(f"took back {found['token_id']} of {found['path']}")
            if not ids:
                print("Nothing of the session is shared.")

    anyio.run(ask)


async def _place(client: RestClient, session: str) -> tuple[str, ...]:
    found = (await client.call("GET", "sessions"))["sessions"]
    return "sessions", resolved(session, found, client.url), "notebooks", "share"
