"""Which controller a command uses, and how it finds a session that is open there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sandbox.cli.folders import state_dir
from sandbox.cli.remote import read_address
from sandbox.cli.remoteaccess import RemoteAccess
from sandbox.cli.restclient import RestClient, base_of
from sandbox.cli.sessionaccess import Access
from sandbox.config import Settings
from sandbox.errors import InvalidRequest, NotFound
from sandbox.server.localtoken import server_token


@dataclass(frozen=True, slots=True)
class ControllerTarget:
    """Which controller is wanted."""

    url: str = ""
    """Of a served one; empty: none."""
    token: str = ""
    """For it; empty: the local token of the state folder."""
    served: bool = False
    """Whether the one of the state folder is wanted, when there is no URL."""

    @property
    def is_remote(self) -> bool:
        """Whether a served controller is meant."""
        return bool(self.url) or self.served

    def client(self, settings: Settings) -> RestClient:
        """A client of the served controller.

        Raises:
            NotFound: None was started from the state folder.
            InvalidRequest: The URL or the token cannot be one.
        """
        folder = state_dir(settings)
        address = read_address(folder)
        if self.url:
            is_ours = address is not None and address[0] == base_of(self.url)
            token = self.token or (server_token(settings, folder) if is_ours else "")
            return RestClient(self.url, token)
        if address is None:
            raise NotFound(
                f"No server has been started from {folder}.",
                remedy="Start one with `sandbox serve`, name its folder with --state-dir, or its "
                "address with --url and SANDBOX_TOKEN.",
            )
        return RestClient(address[0], self.token or server_token(settings, folder))


@asynccontextmanager
async def existing_session(
    settings: Settings, target: ControllerTarget, wanted: str
) -> AsyncGenerator[Access]:
    """A session of the served controller, which stays.

    Args:
        wanted: Its id, the beginning of that if there is no other like it, or its name.

    Raises:
        NotFound: There is none.
        InvalidRequest: There are several.
    """
    async with target.client(settings) as client:
        found = (await client.call("GET", "sessions"))["sessions"]
        yield RemoteAccess(client, resolved(wanted, found, client.url))


def resolved(wanted: str, sessions: list[Mapping[str, Any]], where: str) -> str:
    """The id of the session that is meant.

    Raises:
        NotFound: None is.
        InvalidRequest: Several are.
    """
    ids = [str(each["session_id"]) for each in sessions]
    named = [each["session_id"] for each in sessions if wanted and each.get("name") == wanted]
    begin = [each for each in ids if wanted and each.startswith(wanted)]
    found = [wanted] if wanted in ids else begin or named
    if len(found) == 1:
        return str(found[0])
    if found:
        raise InvalidRequest(
            f"{wanted!r:.80} may be any of {', '.join(found[:8])}.",
            remedy="Give more of the id.",
        )
    remedy = f"Yours are: {', '.join(ids[:8])}" if ids else "You have none there"
    raise NotFound(
        f"There is no session {wanted!r:.80} of yours at {where}.",
        remedy=f"{remedy}. `sandbox sessions list` shows them, `sandbox shell --served` opens one.",
    )
