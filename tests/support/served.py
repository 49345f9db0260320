"""A controller as people run it: ``sandbox serve`` in a process of its own, on a real engine.

``SANDBOX_TEST_RUNTIME`` (``runc`` or ``runsc``) chooses what runs the containers.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import Implementation

RUNTIME = os.environ.get("SANDBOX_TEST_RUNTIME", "runc")
POOL = os.environ.get("SANDBOX_TEST_POOL", "false")
"""Whether served controllers keep sandboxes ready; most tests count what they have opened."""
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
COMMAND_TIMEOUT_S = 300
STACK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Served:
    """A running controller: where it is, its token, process and state folder."""

    base: str
    token: str
    process: subprocess.Popen[bytes]
    state: Path
    log: Path

    @property
    def url(self) -> str:
        return f"{self.base}/mcp/v1"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def http(self, **headers: str) -> httpx2.AsyncClient:
        """An HTTP client with the token."""
        return httpx2.AsyncClient(
            base_url=self.base, headers={**self.headers, **headers}, timeout=120
        )

    @asynccontextmanager
    async def client(
        self, mode: str = "auto", key: str = "", name: str = ""
    ) -> AsyncIterator[Client]:
        """An MCP client of one protocol era and name, with a default session of its own."""
        async with self.http(**({"Sandbox-Session": key} if key else {})) as http:
            transport = streamable_http_client(self.url, http_client=http)
            info = Implementation(name=name, version="1") if name else None
            async with Client(transport, mode=mode, client_info=info) as client:
                yield client


def environment(state: Path, **more: str) -> dict[str, str]:
    """The environment of a controller that keeps its state in this folder."""
    settings = {"STATE_DIR": str(state), "RUNTIME": RUNTIME, "POOL": POOL}
    return {**os.environ, **{f"SANDBOX_{key}": said for key, said in settings.items()}, **more}


def sandbox(
    state: Path, *words: str, given: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of ``sandbox`` on a state folder to its end, with what it reads given.

    ``commandline.run`` does so within this process.
    """
    return subprocess.run(
        [sys.executable, "-m", "sandbox", *words],
        env=environment(state, **env),
        input=given,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )


@contextmanager
def serve(
    folder: Path,
    *words: str,
    program: str = "sandbox",
    spare_bytes: int = 0,
    descriptors: int = 0,
    **env: str,
) -> Iterator[Served]:
    """Run ``sandbox serve`` until the end of the block, then stop it; sessions stay.

    Args:
        folder: Of its state and log.
        words: More of the command line.
        program: The module that is run.
        spare_bytes: The address space that it may take beside what it has when it is ready; 0: any.
        descriptors: Its limit of open files; 0: as here.
        env: More of its environment.
    """

    def bound() -> None:
        if spare_bytes:  # stacks of threads are address space, of which little is used
            resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, STACK_BYTES))
        if descriptors:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    if spare_bytes:
        env = {"MALLOC_ARENA_MAX": "2", **env}
    state, log = folder / "state", folder / "serve.log"
    (state / "server.json").unlink(missing_ok=True)
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", program, "serve", "--port", "0", *words],
            env=environment(state, **env),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            preexec_fn=bound,
        )
    try:
        base = _wait_for_address(process, state / "server.json", log)
        if spare_bytes:
            most = psutil.Process(process.pid).memory_info().vms + spare_bytes
            resource.prlimit(process.pid, resource.RLIMIT_AS, (most, most))
        token = (state / "token").read_text().strip()
        yield Served(base, token, process, state, log)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(STOP_TIMEOUT_S)


def _wait_for_address(process: subprocess.Popen[bytes], path: Path, log: Path) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists():
            base = str(json.loads(path.read_text())["url"])
            try:
                if httpx2.get(f"{base}/readyz", timeout=5).status_code == 200:
                    return base
            except httpx2.TransportError:
                pass  # it does not listen yet
        time.sleep(0.05)
    raise AssertionError(f"the controller did not start:\n{log.read_text(errors='replace')}")


def close_all(served: Served) -> None:
    """Close every session of a controller."""
    with httpx2.Client(base_url=served.base, headers=served.headers, timeout=60) as http:
        for info in http.get("/mcp/v1/sessions").json()["sessions"]:
            http.delete(f"/mcp/v1/sessions/{info['session_id']}")
