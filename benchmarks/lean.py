"""A client that adds as little of its own as Python allows: one connection, no events awaited."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any

from benchmarks.measures import check
from scripts.controller import Controller
from tests.support.rawclient import MODERN, result_in

_META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}


class LeanClient:
    """Tools and REST over one connection that is kept; calls block, for use in a thread."""

    def __init__(self, server: Controller) -> None:
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

    def _post(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> str:
        self._http.request("POST", path, json.dumps(body), headers)
        answer = self._http.getresponse()
        text = answer.read().decode()
        check(answer.status in (200, 201), f"{answer.status} {text}")
        return text
