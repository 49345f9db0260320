"""What the README has people type, typed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "branches",
            (
                r"60 MB loaded in [0-9.]+ s",
                r"  a line and squares: branched in \d+ ms, error 0\.000",
                r"Kept a line and squares, in kernel k-\w+: .*\(937500, 8\)\)",
                r"Kernel k-default is back at the checkpoint 'loaded'.*",
                r"The data that was overwritten is there again: True",
            ),
        ),
        (
            "forks",
            (
                r"Forked three ways in [0-9.]+ s; not carried: log \(a sqlite3\.Connection .*\)",
                r"  a set: 36 found, in \d+ ms",
                r"  sorting: 36 found, in \d+ ms",
                r"  clearing up: error, there is nothing left",
                r"Kept (a set|sorting); the session itself finds 36 with it",
            ),
        ),
    ],
)
def test_the_examples_do_what_the_readme_shows(
    clean: Served, name: str, said: tuple[str, ...]
) -> None:
    assert f"examples/{name}.py" in (ROOT / "README.md").read_text()
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py")],
        env={
            **environment(clean.state),
            "PYTHONPATH": str(ROOT),
            "SANDBOX_URL": clean.base,
            "SANDBOX_TOKEN": clean.token,
            "MEGABYTES": "60",
        },
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    missing = [each for each in said if not any(re.fullmatch(each, line) for line in lines)]
    assert not missing, done.stdout
    assert httpx2.get(f"{clean.url}/sessions", headers=clean.headers).json() == {"sessions": []}
