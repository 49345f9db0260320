"""The MCP Inspector's command line, from npm."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from . import npm

RECIPE = Path(__file__).parents[1] / "integration/inspector"
LAUNCHER = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"


def installed() -> Path:
    """The Inspector's launcher, installed if need be."""
    return npm.installed(RECIPE) / LAUNCHER


def inspect(inspector: Path, home: Path, *words: str, **env: str) -> Any:
    """Run the Inspector and return the JSON it prints."""
    done = subprocess.run(
        [npm.NODE, inspector, "--cli", "--connect-timeout", "100000", *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HOME": str(home), **env},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def over_http(served: Any) -> list[str]:
    """The words with which the Inspector reaches a served controller."""
    return [served.url, "--transport", "http", "--header", f"Authorization: Bearer {served.token}"]
