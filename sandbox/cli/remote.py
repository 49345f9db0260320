"""`sandbox sessions`: asks the running server of this state folder over REST."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any
from urllib.parse import quote, urlsplit

from rich.console import Console
from rich.table import Table

from sandbox.cli.address import read_address
from sandbox.cli.wiring import state_dir
from sandbox.config import Settings
from sandbox.errors import InfrastructureError, NotFound, SandboxError
from sandbox.server.tokens import server_token

TIMEOUT_S = 60.0


class Remote:
    """A running server, asked over REST.

    Raises:
        NotFound: None was started from this state folder.
    """

    def __init__(self, settings: Settings) -> None:
        folder = state_dir(settings)
        address = read_address(folder)
        if address is None:
            raise NotFound(
                f"No server has been started from {folder}.",
                remedy="Start one with `sandbox serve`, or name its folder with --state-dir.",
            )
        self._url, self._pid = address
        self._token = server_token(settings, folder)

    def call(self, method: str, path: str) -> Any:
        """Send a request and return its JSON answer.

        Raises:
            SandboxError: The server does not answer, or answered with an error.
        """
        parts = urlsplit(self._url)
        connection = http.client.HTTPConnection(
            parts.hostname or "127.0.0.1", parts.port or 80, timeout=TIMEOUT_S
        )
        try:
            headers = {"Authorization": f"Bearer {self._token}"}
            connection.request(method, f"/mcp/v1{path}", headers=headers)
            answer = connection.getresponse()
            told = json.loads(answer.read() or b"null")
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise InfrastructureError(
                f"No server answers at {self._url} (process {self._pid} served there): {exc}",
                remedy="Start it again with `sandbox serve`; its sessions are still there.",
            ) from exc
        finally:
            connection.close()
        if answer.status >= 400:
            raise _error(answer.status, told)
        return told


def list_sessions(settings: Settings, *, everybodys: bool, as_json: bool) -> None:
    """Print the open sessions: one's own, or those of all principals."""
    found = Remote(settings).call("GET", "/admin/sessions" if everybodys else "/sessions")
    if as_json:
        print(json.dumps(found["sessions"], indent=2))
        return
    if not found["sessions"]:
        print("No session is open.")
        return
    owner = ["principal"] if everybodys else []
    heads = [*owner, "session", "name", "policy", "runtime", "kernels", "age", "ends in"]
    table = Table(*heads, box=None, header_style="bold")
    now = time.time()
    for info in found["sessions"]:
        table.add_row(
            *(info[key] for key in owner),
            info["session_id"],
            info["name"],
            info["policy"],
            info["runtime"],
            str(len(info["kernels"])),
            _span(now - info["created_at"]),
            _span(info["idle_expires_at"] - now),
        )
    Console(soft_wrap=True).print(table)


def show_session(settings: Settings, session_id: str) -> None:
    """Print all that is known of a session."""
    print(json.dumps(Remote(settings).call("GET", _path(session_id)), indent=2))


def close_sessions(
    settings: Settings, session_ids: list[str], *, every: bool, anybodys: bool
) -> None:
    """Close these sessions, or all of one's own; of other principals too, when asked to."""
    remote = Remote(settings)
    if every:
        session_ids = [info["session_id"] for info in remote.call("GET", "/sessions")["sessions"]]
    for session_id in session_ids:
        remote.call("DELETE", ("/admin" if anybodys else "") + _path(session_id))
        print(f"closed {session_id}")


def list_workspaces(settings: Settings, *, as_json: bool) -> None:
    """Print the named workspaces."""
    found = Remote(settings).call("GET", "/workspaces")["workspaces"]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    if not found:
        print("There is no workspace.")
        return
    table = Table("workspace", "bytes", "saved", "session", box=None, header_style="bold")
    for info in found:
        saved_at = info["saved_at"]
        saved = "never" if saved_at is None else f"{_span(time.time() - saved_at)} ago"
        table.add_row(info["name"], f"{info['size_bytes']:,}", saved, info["session_id"])
    Console(soft_wrap=True).print(table)


def delete_workspaces(settings: Settings, names: list[str]) -> None:
    """Delete these workspaces."""
    remote = Remote(settings)
    for name in names:
        remote.call("DELETE", f"/workspaces/{quote(name, safe='')}")
        print(f"deleted {name}")


def _path(session_id: str) -> str:
    return f"/sessions/{quote(session_id, safe='')}"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _error(status: int, told: Any) -> SandboxError:
    detail, remedy = str(told.get("detail", status)), str(told.get("remedy", ""))
    kind = NotFound if status == 404 else InfrastructureError
    return kind(detail, remedy=remedy)
