"""A controller to try things on: ``sandbox serve`` on a free port with a state of its own.

Shared by the demo and the benchmarks.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

READY_TIMEOUT_S = 60


class ControllerFailed(Exception):
    """The controller did not start."""


@dataclass(frozen=True)
class Controller:
    """A running controller: its address, token and process id; 0 when it was started elsewhere."""

    base: str
    token: str
    pid: int = 0

    @property
    def url(self) -> str:
        """Where MCP is spoken."""
        return f"{self.base}/mcp/v1"

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"Authorization": f"Bearer {self.token}"}

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """An MCP client connected over HTTP."""
        # The exit of a client's task group wraps what the caller raised: hand on the cause itself.
        failure: Exception | None = None
        async with (
            httpx2.AsyncClient(headers=self.headers, timeout=httpx2.Timeout(30, read=300)) as http,
            Client(streamable_http_client(self.url, http_client=http)) as client,
        ):
            try:
                yield client
            except Exception as exc:  # re-raised below, outside the task groups
                failure = exc
        if failure is not None:
            raise failure


def free_port() -> int:
    """A port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def controller(policies: Path | None = None) -> Iterator[Controller]:
    """Run ``sandbox serve`` until the end of the block, then close its sessions and stop it.

    Raises:
        ControllerFailed: It did not become ready; with its log.
    """
    base = f"http://127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory(prefix="sandbox-state-") as state:
        environment = os.environ | {"SANDBOX_STATE_DIR": state}
        if policies is not None:
            environment["SANDBOX_POLICIES"] = str(policies)
        log = Path(state, "serve.log")
        port = base.rpartition(":")[2]
        with log.open("wb") as sink:
            server = subprocess.Popen(
                [sys.executable, "-m", "sandbox", "serve", "--port", port],
                env=environment,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours: we close the sessions first
            )
        try:
            _wait_until_ready(server, base, log)
            shown = subprocess.run(
                [sys.executable, "-m", "sandbox", "token", "show"],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            running = Controller(base, shown.stdout.strip(), server.pid)
            try:
                yield running
            finally:
                _close_sessions(running)
        finally:
            server.terminate()
            server.wait(30)


def _wait_until_ready(server: subprocess.Popen[bytes], base: str, log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx2.get(f"{base}/readyz", timeout=2).status_code == 200:
                return
        except httpx2.TransportError:
            pass  # not listening yet
        time.sleep(0.1)
    raise ControllerFailed(f"the controller did not start:\n{log.read_text(errors='replace')}")


def _close_sessions(server: Controller) -> None:
    with httpx2.Client(base_url=server.base, headers=server.headers, timeout=30) as http:
        listed = http.get("/mcp/v1/sessions").json()
        for session in listed["sessions"]:
            http.delete(f"/mcp/v1/sessions/{session['session_id']}")
