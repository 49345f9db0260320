"""A client that has written no more of the protocol than it needs, in both eras."""

from __future__ import annotations

import json
from typing import Any

import anyio
import anyio.abc
import httpx2

from .calls import greeting
from .served import Served

MODERN = "2026-07-28"
_ACCEPT = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
_META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}


class RawClient:
    """One conversation over HTTP."""

    def __init__(
        self, served: Served, http: httpx2.AsyncClient, version: str = "2025-11-25"
    ) -> None:
        self.version = version
        self.headers = {**served.headers, **_ACCEPT, "MCP-Protocol-Version": version}
        self._served = served
        self._http = http
        self.asked = 1
        """The id of the latest request."""

    async def begin(self) -> None:
        """Shake hands, where that is the way of the version."""
        if self.version == MODERN:
            return
        hello = greeting(self.version)
        answer = await self._http.post("/mcp/v1", json=hello, headers=self.headers)
        self.headers["Mcp-Session-Id"] = answer.headers["mcp-session-id"]
        told = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        await self._http.post("/mcp/v1", json=told, headers=self.headers)

    async def end(self) -> None:
        """Say goodbye."""
        await self._http.delete("/mcp/v1", headers=self.headers)

    def request(self, tool: str, **arguments: Any) -> tuple[dict[str, str], dict[str, Any]]:
        """The headers and the body of a call."""
        self.asked += 1
        params: dict[str, Any] = {"name": tool, "arguments": arguments}
        headers = dict(self.headers)
        if self.version == MODERN:
            params["_meta"] = _META
            headers |= {"Mcp-Method": "tools/call", "Mcp-Name": tool}
        asked = {"jsonrpc": "2.0", "id": self.asked, "method": "tools/call", "params": params}
        return headers, asked

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool; its result."""
        headers, asked = self.request(tool, **arguments)
        answer = await self._http.post("/mcp/v1", json=asked, headers=headers)
        return result_in(answer.text)

    async def run(self, code: str) -> str:
        """Run a cell; the text of the result."""
        content = (await self.call("execute_code", code=code))["content"]
        return "\n".join(each.get("text", "") for each in content)

    async def cancel(self, asked: int) -> None:
        """Give a request up, in so many words."""
        params = {"requestId": asked, "reason": "enough"}
        told = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
        await self._http.post("/mcp/v1", json=told, headers=self.headers)

    async def send(self, tool: str, **arguments: Any) -> anyio.abc.SocketStream:
        """Call a tool over a connection of its own, which is returned for whoever cuts it."""
        headers, asked = self.request(tool, **arguments)
        body = json.dumps(asked).encode()
        url = httpx2.URL(self._served.base)
        headers |= {"Host": f"{url.host}:{url.port}", "Content-Length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        stream = await anyio.connect_tcp(url.host, url.port or 80)
        await stream.send(f"POST /mcp/v1 HTTP/1.1\r\n{head}\r\n".encode() + body)
        return stream


def result_in(text: str) -> dict[str, Any]:
    """The result in the body of an answer: JSON, or the last of its events."""
    lines = [line.removeprefix("data:").strip() for line in text.splitlines() or [text]]
    answers = [json.loads(line) for line in lines if line.startswith("{")]
    return answers[-1]["result"]
