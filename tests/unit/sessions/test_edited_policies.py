"""Policy files that are edited while a controller runs."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import resources
from sandbox.cli.wiring import session_manager
from sandbox.config import Settings
from sandbox.policy import LivePolicies, load
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.slots import take_slot
from sandbox.testing import FakeRuntime

pytestmark = pytest.mark.anyio

CALLER = Caller("somebody")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "mine.yaml").write_text("version: 1\nlimits: {pids: 100}\n")
    return folder


@pytest.fixture
async def manager(tmp_path: Path, own: Path) -> AsyncIterator[SessionManager]:
    folders = [resources.policies(), own]
    seconds = itertools.count(step=10)
    policies = LivePolicies(lambda: load(*folders), folders, clock=lambda: float(next(seconds)))
    state = tmp_path / "state"
    with take_slot(state, "serve") as slot:
        async with session_manager(
            FakeRuntime(),
            policies,
            Settings(state_dir=state),
            slot,
            image_for=lambda name: f"sandbox/{name}:test",
            keep=False,
        ) as manager:
            yield manager


def recorded(manager: SessionManager, tmp_path: Path) -> list[dict[str, Any]]:
    """What the audit log says of the policies."""
    files = sorted((tmp_path / "state" / "controllers" / "serve" / "audit").glob("*.jsonl"))
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [line for line in lines if line["kind"] == "policy"]


async def test_an_edit_counts_for_new_sessions_and_not_for_those_that_are_open(
    manager: SessionManager, own: Path, tmp_path: Path
) -> None:
    before = await manager.open(CALLER, policy="mine")
    (own / "mine.yaml").write_text("version: 1\nlimits: {pids: 50}\n")
    after = await manager.open(CALLER, policy="mine")  # not the open one: it is another policy now
    assert (before.policy.limits.pids, after.policy.limits.pids) == (100, 50)
    assert before.info().state == after.info().state == "open"
    assert before.info().policy_digest == before.policy.digest
    assert after.info().policy_digest == after.policy.digest != before.policy.digest
    assert [line["event"] for line in recorded(manager, tmp_path)] == ["loaded", "reloaded"]


async def test_a_wrong_edit_keeps_the_last_good_set_and_is_on_record(
    manager: SessionManager, own: Path, tmp_path: Path
) -> None:
    (own / "mine.yaml").write_text("version: 1\nlimits: {pidz: 50}\n")
    session = await manager.open(CALLER, policy="mine")
    assert session.policy.limits.pids == 100
    (said,) = [line for line in recorded(manager, tmp_path) if line["event"] == "refused"]
    assert "limits.pidz" in said["reason"]
    assert time.time() - said["time"] < 60
