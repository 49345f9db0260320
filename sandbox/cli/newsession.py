"""A session for one command: at a served controller or in one of its own, and gone afterwards."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio

from sandbox.audit import Call, recorded
from sandbox.cli.localaccess import LocalAccess
from sandbox.cli.remoteaccess import RemoteAccess
from sandbox.cli.restclient import RestClient
from sandbox.cli.sessionaccess import Access
from sandbox.cli.targets import ControllerTarget
from sandbox.cli.wiring import controller
from sandbox.config import Settings
from sandbox.errors import NotFound, NotPermitted
from sandbox.policy import Policy
from sandbox.policy.network import AllowRule
from sandbox.server.grants import LOCAL
from sandbox.sessions.models import Caller

INDEX = "package-index"
CLOSE_S = 30.0


@asynccontextmanager
async def new_session(
    settings: Settings,
    target: ControllerTarget,
    policy: str,
    command: str,
    arguments: Mapping[str, Any],
    *,
    installs: bool = False,
) -> AsyncGenerator[tuple[Access, Call | None]]:
    """A new session, which is closed at the end, unless it is gone by then.

    Args:
        policy: Its policy; empty for the default one.
        command: What is put on record, with these arguments.
        installs: Whether the policy must permit packages to be installed.

    Returns:
        The way to it, and the call on record where that is kept here.

    Raises:
        NotPermitted: The policy permits no installation; nothing was started.
        SandboxError: It could not be opened.
    """
    if target.is_remote:
        async with target.client(settings) as client:
            if installs:
                check_remote(policy, (await client.call("GET", "policies"))["policies"])
            session_id = await _opened(client, {"policy": policy, "reuse": False})
            try:
                yield RemoteAccess(client, session_id), None
            finally:
                with anyio.move_on_after(CLOSE_S, shield=True), suppress(NotFound):
                    await client.call("DELETE", "sessions", session_id)
        return
    async with controller(settings, "run") as manager:
        with recorded(manager.audit, "cli", command, arguments, LOCAL) as call:
            manager.audit.require()
            if installs:
                policies = [manager.policies.get(name) for name in manager.policies.names()]
                wanted = manager.policies.get(policy)
                able = [each.name for each in policies if permits_installing(each)]
                _check_installs(wanted.name, able)
            session = await manager.open(Caller(LOCAL), policy=policy, reuse=False)
            try:
                yield LocalAccess(session), call
            finally:
                with anyio.move_on_after(CLOSE_S, shield=True), suppress(NotFound):
                    await manager.close(Caller(LOCAL), session.session_id)


async def _opened(client: RestClient, body: Mapping[str, Any]) -> str:
    """Open a session; not to be broken off, so that it is known what is to be closed."""
    info: dict[str, Any] = {}
    with anyio.CancelScope(shield=True):
        info = await client.call("POST", "sessions", body=body)
    return str(info["session_id"])


def permits_installing(policy: Policy) -> bool:
    """Whether sessions of a policy reach the package index."""
    return any(rule.service == INDEX for rule in policy.network.allow)


def check_remote(policy: str, known: list[Mapping[str, Any]]) -> None:
    """The same of a served controller's policies, which it tells in words."""
    opens = AllowRule(service=INDEX).in_words()
    able = [
        str(info["name"])
        for info in known
        if any(str(each["text"]).startswith(opens) for each in info["allows"])
    ]
    default = next((str(info["name"]) for info in known if info["is_default"]), "")
    _check_installs(policy or default, able)


def _check_installs(policy: str, able: list[str]) -> None:
    if policy in able:
        return
    if able:
        remedy = f"Use --policy with one that does: {', '.join(able)}."
    else:
        remedy = "No policy here does; one needs the rule `service: package-index`."
    raise NotPermitted(
        f"The policy {policy!r} does not let packages be installed, so nothing was started.",
        remedy=remedy,
    )
