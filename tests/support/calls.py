"""What clients of a controller say, and what they are told."""

from __future__ import annotations

from typing import Any

from mcp import Client


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that must succeed; its structured result."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


def written(result: dict[str, Any]) -> str:
    """What a cell wrote, with the end of its last line."""
    return f"{result['text']}\n" if result.get("text") else ""


def greeting(version: str) -> dict[str, Any]:
    """The first request of a client of one version of the protocol that shakes hands."""
    return {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": version,
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
