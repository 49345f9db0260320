"""Every shipped policy is a good file, and is proved on a real engine."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import resources
from sandbox.cli import exits
from sandbox.policy import load

from ..support.served import RUNTIME, sandbox

SHIPPED = sorted(load().names())


@pytest.fixture(scope="module")
def datasets() -> Iterator[Path]:
    """A root such as an operator names; not below /tmp, where anybody may make folders."""
    with tempfile.TemporaryDirectory(prefix="sandbox-test-", dir="/srv") as folder:
        path = Path(folder)
        path.chmod(0o755)
        (path / "data.csv").write_text("a,b\n1,2\n")
        yield path


def test_every_shipped_policy_is_a_good_file(tmp_path: Path) -> None:
    files = [str(path) for path in sorted(resources.policies().glob("*.yaml"))]
    checked = sandbox(tmp_path / "state", "policy", "check", *files)
    assert checked.returncode == exits.OK, checked.stderr
    assert checked.stdout.count(": ok") == len(files) == len(SHIPPED)


def test_every_shipped_policy_is_proved_here(tmp_path: Path, datasets: Path) -> None:
    proved = sandbox(tmp_path / "state", "verify", "--json", SANDBOX_ROOTS=f"datasets={datasets}")
    verdicts: list[dict[str, Any]] = json.loads(proved.stdout)
    assert [v["policy"] for v in verdicts] == SHIPPED
    assert {v["policy"]: v["reason"] for v in verdicts if not v["ok"]} == {}
    for verdict in verdicts:
        assert verdict["runtime"] == RUNTIME
        assert {row["source"] for row in verdict["rows"]} == {
            "the engine says",
            "measured inside",
        }
        assert len(verdict["rows"]) > 50
    assert proved.returncode == exits.OK


def test_a_policy_that_misses_something_here_is_not_proved_and_says_what(tmp_path: Path) -> None:
    without = {"SANDBOX_ROOTS": ""}
    verdict = sandbox(tmp_path / "state", "verify", "--policy", "readonly-data", **without)
    assert verdict.returncode == exits.FAILED
    assert "NOT PROVED" in verdict.stdout
    assert "datasets" in verdict.stdout
    assert os.environ.get("SANDBOX_ROOTS", "") == ""
