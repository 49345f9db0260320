from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sandbox.cli import hostcheck
from sandbox.cli.serve import say_what_is_promised
from sandbox.config import Settings
from sandbox.policy import load
from sandbox.resources import policies
from sandbox.runtimes.base import EngineInfo
from sandbox.sessions import overcommit
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.overcommit import Amounts
from sandbox.testing import FakeRuntime

ENGINE = EngineInfo("e", "1", "1", 2, ("runc",), True, "x86_64", 8 * 1024**3, 2)


@pytest.fixture
def proc_sys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings of a kernel that is this machine's."""
    (tmp_path / "debug").mkdir()
    (tmp_path / "kernel").mkdir()
    monkeypatch.setattr(hostcheck, "PROC_SYS", tmp_path)
    monkeypatch.setattr(overcommit, "of_host", lambda _: Amounts(8 * 1024**3, 32_768, 800_000))
    return tmp_path


def findings(engine: EngineInfo, tmp_path: Path, **settings: object) -> dict[str, list[str]]:
    """What is found, as verdict and text by name."""
    chosen = Settings.model_validate({"state_dir": tmp_path, **settings})
    found: dict[str, list[str]] = {}
    for each in hostcheck.host_findings(engine, chosen, load(policies())):
        found.setdefault(each.name, []).append(f"{each.verdict}: {each.detail} {each.remedy}")
    return found


def test_what_all_sessions_may_use_is_held_against_the_host(proc_sys: Path, tmp_path: Path) -> None:
    (told,) = findings(ENGINE, tmp_path)["promised"]
    assert told.startswith("warn: 100 sessions (max_sessions)")
    assert "400GiB of memory, and the host has 8GiB" in told
    assert "26,214,400 open files" in told
    assert findings(ENGINE, tmp_path, max_sessions=2)["promised"][0].startswith("ok")
    (told,) = findings(ENGINE, tmp_path, overcommit="refuse")["promised"]
    assert told.startswith("ok")
    assert "refused" in told


def test_a_kernel_that_logs_crashes_is_named(proc_sys: Path, tmp_path: Path) -> None:
    assert "kernel log" not in findings(ENGINE, tmp_path)
    (proc_sys / "debug/exception-trace").write_text("1\n")
    (proc_sys / "kernel/print-fatal-signals").write_text("0\n")
    (told,) = findings(ENGINE, tmp_path)["kernel log"]
    assert told.startswith("warn: debug.exception-trace is on")
    assert "`sysctl -w debug.exception-trace=0`" in told


def test_the_profile_of_containers_is_told_with_how_to_load_ours(
    proc_sys: Path, tmp_path: Path
) -> None:
    assert findings(ENGINE, tmp_path)["apparmor"][0].startswith("ok: the engine has none")
    (told,) = findings(replace(ENGINE, has_apparmor=True), tmp_path)["apparmor"]
    assert told.startswith("warn")
    assert f"`apparmor_parser -r -W {policies()}/apparmor/sandbox`" in told
    mine = replace(ENGINE, has_apparmor=True, apparmor="sandbox")
    assert findings(mine, tmp_path)["apparmor"] == ["ok: on, with the profile sandbox "]


@pytest.mark.anyio
async def test_the_start_of_a_server_says_what_its_host_cannot_hold(
    proc_sys: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = cast(
        "SessionManager", SimpleNamespace(runtime=FakeRuntime(), policies=load(policies()))
    )
    cases: list[tuple[dict[str, Any], int]] = [({}, 1), ({"overcommit": "refuse"}, 0)]
    for settings, lines in [*cases, ({"max_sessions": 2}, 0)]:
        caplog.clear()
        await say_what_is_promised(manager, Settings(state_dir=tmp_path, **settings))
        assert len(caplog.messages) == lines
        assert all("overcommit: refuse" in message for message in caplog.messages)
