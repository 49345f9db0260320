"""This project: ``sandbox serve``, asked over plain HTTP by a client that adds little itself."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import anyio

from benchmarks.lean import LeanClient
from benchmarks.peers.adapters.loop import Adapter, serve
from sandbox.container.labels import LABEL_UID
from scripts.controller import Controller, controller

BLOCK_BYTES = 1 << 20
IDLE_S = 1.0
SETTLE_TIMEOUT_S = 60
POLICIES = Path(__file__).parents[1] / "policies"


class Ours(Adapter):
    """A session is one of the controller's, by its id."""

    def start(self, settings: Mapping[str, str]) -> None:
        os.environ["SANDBOX_POOL"] = settings["pool"]
        self._policy = settings["policy"]
        self._stack = ExitStack()
        self._server: Controller = self._stack.enter_context(controller(policies=POLICIES))
        self._clients = threading.local()
        self.settle()

    def stop(self) -> None:
        self._stack.close()

    def open(self) -> str:
        opened = self._client.call("open_session", policy=self._policy, reuse=False)
        return opened["session_id"]

    def run(self, session: str, code: str) -> str:
        return self._client.run(code, session_id=session)["text"]

    def output(self, session: str, code: str) -> str:
        """Over REST, which tells all that the policy keeps; over MCP a model is told the ends."""
        told = self._client.post(f"sessions/{session}/executions", {"code": code})
        if told["status"] != "ok":
            raise RuntimeError(told)
        return told["text"]

    def restart(self, session: str) -> None:
        self._client.call("restart_kernel", session_id=session)

    def close(self, session: str) -> None:
        self._client.call("close_session", session_id=session)

    def put(self, session: str, source: Path, name: str) -> None:
        with closing(self._connection()) as http, source.open("rb") as file:
            size = str(source.stat().st_size)
            headers = {**self._server.headers, "Content-Length": size}
            http.request("PUT", self._file(session, name), file, headers)
            answer = http.getresponse()
            if answer.status not in (200, 201):
                raise RuntimeError(answer.read())

    def get(self, session: str, name: str, target: Path) -> None:
        with closing(self._connection()) as http, target.open("wb") as file:
            http.request("GET", self._file(session, name), headers=self._server.headers)
            answer = http.getresponse()
            if answer.status != 200:
                raise RuntimeError(answer.read())
            while block := answer.read(BLOCK_BYTES):
                file.write(block)

    def settle(self) -> None:
        """Wait until the pool is as full as it shall be."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while time.monotonic() < deadline:
            with closing(self._connection()) as http:
                http.request("GET", "/mcp/v1/admin/pool", headers=self._server.headers)
                shelves = json.loads(http.getresponse().read())["policies"]
            if all(shelf["ready"] >= shelf["target"] and not shelf["coming"] for shelf in shelves):
                return
            time.sleep(0.05)
        raise TimeoutError(f"the pool did not fill: {shelves}")

    def containers(self, session: str) -> list[str]:
        uid = self.run(session, "print(__import__('os').getuid())").strip()
        command = ["docker", "ps", "--quiet", "--no-trunc", "--filter", f"label={LABEL_UID}={uid}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    def official(self, session: str, code: str, times: int) -> list[float]:
        async def measured() -> list[float]:
            durations: list[float] = []
            async with self._server.client() as client:
                arguments: dict[str, Any] = {"code": code, "session_id": session}
                await client.call_tool("execute_code", arguments)  # connects
                for _ in range(times):
                    begun = time.perf_counter()
                    result = await client.call_tool("execute_code", arguments)
                    durations.append(time.perf_counter() - begun)
                    if not (result.structured_content or {}).get("status") == "ok":
                        raise RuntimeError(result)
            return durations

        return anyio.run(measured)

    @property
    def _client(self) -> LeanClient:
        """One for each thread, since it has one connection, which the server closes when idle."""
        now = time.monotonic()
        if now - getattr(self._clients, "used_at", 0.0) > IDLE_S:
            self._clients.lean = LeanClient(self._server)
        self._clients.used_at = now
        return self._clients.lean

    def _connection(self) -> HTTPConnection:
        return HTTPConnection(
            self._server.base.removeprefix("http://"), timeout=300, blocksize=BLOCK_BYTES
        )

    @staticmethod
    def _file(session: str, name: str) -> str:
        return f"/mcp/v1/sessions/{session}/files/{name}"


if __name__ == "__main__":
    serve(Ours())
