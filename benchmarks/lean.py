"""A client that adds as little of its own as Python allows: one connection, no events awaited."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from select import select
from typing import Any, Protocol

from benchmarks.measures import check
from tests.support.rawclient import MODERN, result_in

_META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Reachable(Protocol):
    """A controller, and what makes somebody its caller."""

    @property
    def base(self) -> str:
        """Its address."""
        ...

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        ...


class LeanClient:
    """Tools and REST over one connection that is kept; calls block, for use in a thread."""

    def __init__(self, server: Reachable) -> None:
        self._http = HTTPConnection(server.base.removeprefix("http://"), timeout=300)
        self._rest = {**server.headers, "Content-Type": "application/json"}
        self._mcp = {
            **self._rest,
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": MODERN,
            "Mcp-Method": "tools/call",
        }

    def __enter__(self) -> LeanClient:
        return self

    def __exit__(self, *_ended: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; may be called twice."""
        self._http.close()

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that must succeed; its structured result."""
        params = {"name": tool, "arguments": arguments, "_meta": _META}
        asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        answer = self._post("/mcp/v1", asked, {**self._mcp, "Mcp-Name": tool})
        result = result_in(answer)
        check(not result.get("isError") and "structuredContent" in result, result)
        return result["structuredContent"]

    def run(self, code: str, **arguments: Any) -> dict[str, Any]:
        """Run a cell that must succeed."""
        result = self.call("execute_code", code=code, **arguments)
        check(result["status"] == "ok", result)
        return result

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask over REST."""
        return json.loads(self._post(f"/mcp/v1/{path}", body, self._rest))

    def get(self, path: str) -> dict[str, Any]:
        """Look at something over REST."""
        self._ask("GET", f"/mcp/v1/{path}", self._rest)
        return json.loads(self._answer())

    def file(self, session_id: str, path: str) -> bytes:
        """Take a file of a session over REST."""
        self._http.request("GET", f"/mcp/v1/sessions/{session_id}/files/{path}", headers=self._rest)
        answer = self._http.getresponse()
        data = answer.read()
        check(answer.status == 200, answer.status)
        return data

    def delete(self, path: str) -> None:
        """Take something away over REST."""
        self._ask("DELETE", f"/mcp/v1/{path}", self._rest)
        self._answer()

    def _post(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> str:
        self._ask("POST", path, headers, json.dumps(body))
        return self._answer()

    def _ask(self, method: str, path: str, headers: dict[str, str], body: str = "") -> None:
        """Send a request, over a new connection where the server has closed the one there was."""
        if self._http.sock is not None and select([self._http.sock], (), (), 0)[0]:
            self._http.close()
        self._http.request(method, path, body or None, headers)

    def _answer(self) -> str:
        answer = self._http.getresponse()
        text = answer.read().decode()
        check(answer.status in (200, 201, 204), f"{answer.status} {text}")
        return text
