"""The audit log of controllers as people run them, read with the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest

from sandbox.audit import digest_of
from sandbox.audit.logfiles import segments
from sandbox.cli import exits

from ..support.served import Served, close_all, sandbox

pytestmark = pytest.mark.anyio


def audit(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``sandbox audit`` on a state folder."""
    return sandbox(state, "audit", *words)


def entries(state: Path, *words: str) -> list[dict[str, Any]]:
    """What ``export`` prints."""
    exported = audit(state, "export", *words)
    assert exported.returncode == exits.OK, exported.stderr
    return [json.loads(line) for line in exported.stdout.splitlines()]


async def test_what_callers_do_is_on_record_and_verification_passes(clean: Served) -> None:
    async with clean.client(key="audited") as client:
        opened = await client.call_tool("open_session", {"name": "audited"})
        assert opened.structured_content is not None
        session_id = opened.structured_content["session_id"]
        code = {"code": "1 / 0", "session_id": session_id}
        await client.call_tool("execute_code", code)
        await client.call_tool("execute_code", {"cod": "1"})
    async with clean.http() as http:
        await http.put(f"/mcp/v1/sessions/{session_id}/files/f", content=b"x")
        await http.get("/mcp/v1/sessions", headers={"Authorization": "Bearer stranger"})
        await http.delete(f"/mcp/v1/sessions/{session_id}")
    told = entries(clean.state, "--session", session_id)
    assert [
        (entry.get("tool") or entry["event"], entry.get("outcome"), entry.get("code"))
        for entry in told
    ] == [
        ("opened", None, None),
        ("open_session", "ok", None),
        ("execute_code", "failed", "error"),
        ("PUT /sessions/{session_id}/files/{path:path}", "ok", None),
        ("ended", None, None),
        ("DELETE /sessions/{session_id}", "ok", None),
    ]
    assert told[2]["arguments"] == digest_of(code)
    assert {entry["principal"] for entry in told} == {"local"}
    assert {entry["policy"] for entry in told} == {"offline"}
    assert told[0]["checks"] == opened.structured_content["checks_passed"]
    every = entries(clean.state)
    assert any(entry.get("code") == "invalid_request" for entry in every)
    assert any(entry["kind"] == "denial" and entry["reason"] == "token" for entry in every)
    verified = audit(clean.state, "verify")
    assert verified.returncode == exits.OK, verified.stdout


async def test_verification_fails_when_one_byte_was_changed(clean: Served, tmp_path: Path) -> None:
    async with clean.http() as http:
        await http.get("/mcp/v1/sessions")
    copied = tmp_path / "state"
    shutil.copytree(clean.state, copied)
    assert audit(copied, "verify").returncode == exits.OK
    path = segments(copied / "controllers/serve/audit")[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    verified = audit(copied, "verify")
    assert verified.returncode == exits.FAILED
    assert f"{path.name}, line " in verified.stdout


async def test_a_killed_controllers_record_is_whole_and_the_next_one_goes_on(
    run_server: Callable[..., AbstractContextManager[Served]], tmp_path: Path
) -> None:
    with run_server(tmp_path) as first:
        async with first.client() as client:
            code = {"code": "while True: pass", "wait": 0}
            running = await client.call_tool("execute_code", code)
            assert not running.is_error
        first.process.kill()
        first.process.wait(30)
    assert audit(first.state, "verify").returncode == exits.OK
    with run_server(tmp_path) as second:
        with anyio.fail_after(30):
            while not any(entry.get("event") == "adopted" for entry in entries(second.state)):
                await anyio.sleep(0.1)
        close_all(second)
    told = entries(second.state)
    verified = audit(second.state, "verify")
    assert verified.returncode == exits.OK, verified.stdout
    life = [entry["event"] for entry in told if entry["kind"] in ("controller", "session")]
    assert life == ["started", "opened", "started", "adopted", "ended", "stopped"]
    assert [entry["seq"] for entry in told] == list(range(1, len(told) + 1))


async def test_code_run_from_the_command_line_is_on_record(tmp_path: Path) -> None:
    state = tmp_path / "state"
    run = sandbox(state, "run", "-c", "raise SystemExit(3)")
    assert run.returncode == 3
    told = [entry for entry in entries(state) if entry["kind"] == "call"]
    assert [(entry["tool"], entry["outcome"], entry["transport"]) for entry in told] == [
        ("sandbox run", "failed", "cli")
    ]
    assert audit(state, "verify").returncode == exits.OK
