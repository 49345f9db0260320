"""What the README has people type, typed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2

from ..support.served import Served, environment

ROOT = Path(__file__).parents[2]
LIMIT_S = 180


def walk() -> str:
    """The commands between the marks."""
    readme = (ROOT / "README.md").read_text()
    found = re.search(r"<!-- walk -->\n```bash\n(.+?)```\n<!-- end of walk -->", readme, re.DOTALL)
    assert found
    return found[1]


def test_the_walk_with_curl_leads_from_nothing_to_a_plot_on_disk(
    clean: Served, tmp_path: Path
) -> None:
    commands = walk()
    for word in ("--json", "-T -", "-X DELETE", "-o trees.png"):
        assert word in commands
    assert "http://127.0.0.1:8000" in commands
    own = tmp_path / ".venv/bin/sandbox"
    own.parent.mkdir(parents=True)
    own.write_text(f'#!/bin/sh\nexec {sys.executable} -m sandbox "$@"\n')
    own.chmod(0o755)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands.replace("http://127.0.0.1:8000", clean.base)],
        cwd=tmp_path,
        env={**environment(clean.state), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    plot = (tmp_path / "trees.png").read_bytes()
    assert plot.startswith(b"\x89PNG")
    assert len(plot) > 2000
    assert '"status":"ok"' in done.stdout
    assert "trees" in done.stdout
    sessions = httpx2.get(f"{clean.url}/sessions", headers=clean.headers).json()
    assert sessions == {"sessions": []}
