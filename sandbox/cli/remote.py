"""The served controller of a state folder: where it listens, and asking it over REST."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from sandbox.cli.folders import state_dir
from sandbox.config import Settings
from sandbox.errors import InfrastructureError, NotFound
from sandbox.server.localtoken import server_token

FILE = "server.json"
TIMEOUT_S = 60.0


@contextmanager
def announced(state_dir: Path, url: str) -> Generator[None]:
    """Keep the address of this process in the state folder while it serves."""
    path = state_dir / FILE
    fresh = path.with_name(f"{FILE}.{os.getpid()}")
    fresh.write_text(json.dumps({"url": url, "pid": os.getpid()}) + "\n")
    fresh.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def read_address(state_dir: Path) -> tuple[str, int] | None:
    """The address and process id of the server; None when none was started.

    A server that was killed leaves its address behind: whoever uses it must expect no answer.
    """
    try:
        found = json.loads((state_dir / FILE).read_text())
        return str(found["url"]), int(found["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


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

    def call(
        self,
        method: str,
        *path: str,
        body: Mapping[str, Any] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Any:
        """Send a request for a path, given in its parts, and return its JSON answer.

        Raises:
            SandboxError: The server does not answer, or answered with an error.
        """
        parts = urlsplit(self._url)
        connection = http.client.HTTPConnection(
            parts.hostname or "127.0.0.1", parts.port or 80, timeout=timeout_s
        )
        try:
            target = "/".join(("/mcp/v1", *(quote(part, safe="") for part in path)))
            headers = {"Authorization": f"Bearer {self._token}"}
            sent = None if body is None else json.dumps(body)
            if sent is not None:
                headers["Content-Type"] = "application/json"
            connection.request(method, target, sent, headers)
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
            kind = NotFound if answer.status == 404 else InfrastructureError
            raise kind(str(told.get("detail", answer.status)), remedy=str(told.get("remedy", "")))
        return told
