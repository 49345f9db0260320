"""Attacks on snapshots of the workspace, by code that has the same uid as the process with them.

What an attack does is in ``tests/support/snapshotrun.py``, and runs inside.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from ..support.snapshotprogram import program
from .conftest import RUNTIME, Attacked

pytestmark = pytest.mark.anyio

ROUNDS = 150 if RUNTIME != "runsc" else 15


async def inside(sandbox: Attacked, task: str, argument: int = 0) -> dict[str, Any]:
    """What a task finds."""
    result = await sandbox.shell("python3 -", stdin=program(task, argument), timeout_s=240)
    assert result.exit_code == 0, f"{result.stderr}\n{result.stdout}"
    return json.loads(result.stdout.strip().splitlines()[-1])


async def test_no_link_that_is_put_in_between_leads_a_snapshot_out_of_the_workspace(
    sandbox: Attacked,
) -> None:
    """Invariant 3: folders and files are swapped for links while snapshots are taken and put back;
    nothing outside is read or changed, and what is refused is told."""
    found = await inside(sandbox, "race", ROUNDS)
    assert found["outside"], "something outside was changed"
    assert found["secrets"] == 0, "something outside was read"
    assert (found["same"], found["left"]) == (True, [])
    assert sum(found["told"].values()) == 2 * ROUNDS
    assert set(found["told"]) <= {"done", "Conflict", "FileError", "InfrastructureError"}
    assert found["told"].get("done", 0) > 0
    assert len(found["told"]) > 1, "the attack never met anything: it proves nothing"


async def test_no_code_looks_into_a_snapshot_or_changes_it(sandbox: Attacked) -> None:
    """Invariant 8: what a checkpoint gives back is what was there; who ends the process with the
    snapshots is not given something else for them."""
    found = await inside(sandbox, "reach")
    # gVisor lists descriptors of any process of the uid: a socket, which nobody can open, the
    # workspace's folder, and those that are nobody's secret.
    opened = [entry for entry in found["open"] if entry[1] not in ("/workspace", "/dev/null")]
    if sandbox.gvisor:
        opened = [e for e in opened if e[0] in ("mem", "pagemap") or "memfd" in e[1]]
    assert opened == []
    assert found["after"][0] == "NotFound"
    assert "was lost" in found["after"][1]
    assert "SIGKILL" in found["after"][1]
