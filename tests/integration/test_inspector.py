"""The MCP Inspector's command line, from npm, lists the tools and calls them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from sandbox.server.scopes import TOOL_SCOPES

from ..support.inspector import inspect, installed, over_http
from ..support.served import environment


@pytest.fixture(scope="module")
def inspector() -> Path:
    """The Inspector's launcher."""
    return installed()


def test_it_lists_the_tools_and_finds_no_fault_in_their_schemas(
    inspector: Path, clean: Any, tmp_path: Path
) -> None:
    words = [*over_http(clean), "--method", "tools/list", "--strict"]
    tools = {tool["name"] for tool in inspect(inspector, tmp_path, *words)["tools"]}
    assert tools == set(TOOL_SCOPES)


def test_it_runs_code(inspector: Path, clean: Any, tmp_path: Path) -> None:
    call = ["--method", "tools/call", "--tool-name", "execute_code", "--tool-arg"]
    result = inspect(inspector, tmp_path, *over_http(clean), *call, "code=print(6 * 7)")
    assert result["structuredContent"]["text"] == "42"
    assert result["isError"] is False


def test_it_runs_a_command_and_reads_a_file_over_stdio(inspector: Path, tmp_path: Path) -> None:
    known = environment(tmp_path / "state")
    result = inspect(
        inspector,
        tmp_path,
        sys.executable,
        "-m",
        "sandbox",
        "mcp",
        "-e",
        f"SANDBOX_STATE_DIR={known['SANDBOX_STATE_DIR']}",
        "-e",
        f"SANDBOX_RUNTIME={known['SANDBOX_RUNTIME']}",
        "--transport",
        "stdio",
        "--method",
        "tools/call",
        "--tool-name",
        "run_command",
        "--tool-arg",
        "command=echo hello",
    )
    assert result["structuredContent"]["stdout"] == "hello\n"
