"""Secrets of sessions: read at the opening, in no output, no journal and no log."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandbox.errors import ConfigError
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.testing import FakeEngine

from .controllers import Controllers, run

ALICE = Caller("alice")
VALUE = "sk-Zq7 a long one"
KEYED = """\
version: 1
description: One secret, as a file.
secrets:
  - {name: api-key, as: file}
"""

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path, controllers: Controllers) -> Path:
    (controllers.policies / "keyed.yaml").write_text(KEYED)
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    return folder


@asynccontextmanager
async def running(
    controllers: Controllers, folder: Path, *, keep: bool = False
) -> AsyncIterator[SessionManager]:
    async with controllers.running(keep=keep, secrets_dir=folder) as manager:
        yield manager


async def test_without_its_secret_no_session_opens_and_nothing_is_made(
    controllers: Controllers, folder: Path
) -> None:
    async with running(controllers, folder) as manager:
        with pytest.raises(ConfigError, match=r"'keyed'.*'api-key'"):
            await manager.open(ALICE, policy="keyed")
        assert controllers.container_ids() == []
        assert (await manager.open(ALICE)).is_usable


async def test_a_session_finds_its_secret_when_its_caller_gets_it(
    controllers: Controllers, folder: Path, engine: FakeEngine
) -> None:
    (folder / "api-key").write_text(f"{VALUE}\n")
    async with running(controllers, folder) as manager:
        session = await manager.open(ALICE, policy="keyed")
        data, stat = await session.files.read_bytes("/run/secrets/api-key", 1000)
        assert (data.decode(), stat.mode & 0o777) == (VALUE, 0o400)
        container = engine.containers[session.container_id or ""]
        assert VALUE not in repr(container.spec)


async def test_no_output_and_no_journal_has_the_value(
    controllers: Controllers, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (folder / "api-key").write_text(VALUE)
    async with running(controllers, folder) as manager:
        session = await manager.open(ALICE, policy="keyed")
        half, rest = VALUE[:7], VALUE[7:]
        shown = await run(session, f"x = '{half}' + '{rest}'\nprint(x)\nx")
        failed = await run(session, f"raise ValueError('{half}' + '{rest}')")
        assert shown.outputs[0]["text"] == "[secret api-key]\n"
        assert VALUE not in shown.model_dump_json() + failed.model_dump_json()
    kept = [path.read_bytes() for path in controllers.state.rglob("*") if path.is_file()]
    assert kept
    assert not [data for data in kept if VALUE.encode() in data]
    assert VALUE not in caplog.text


async def test_after_a_restart_outputs_are_searched_as_before(
    controllers: Controllers, folder: Path
) -> None:
    (folder / "api-key").write_text(VALUE)
    async with running(controllers, folder, keep=True) as manager:
        opened = await manager.open(ALICE, policy="keyed")
        await opened.files.write("/run/secrets/api-key", b"changed by its code")
    async with running(controllers, folder) as manager:
        session = await manager.get(ALICE, opened.session_id)
        result = await run(session, f"print('{VALUE}')")
        assert result.outputs[0]["text"] == "[secret api-key]\n"
        # It was given once, and what the session made of it since is the session's own.
        data, _ = await session.files.read_bytes("/run/secrets/api-key", 1000)
        assert data == b"changed by its code"


async def test_a_session_is_taken_back_though_its_secret_is_gone_meanwhile(
    controllers: Controllers, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "api-key").write_text(VALUE)
    async with running(controllers, folder, keep=True) as manager:
        opened = await manager.open(ALICE, policy="keyed")
    (folder / "api-key").unlink()
    async with running(controllers, folder) as manager:
        assert (await manager.get(ALICE, opened.session_id)).is_usable
    assert "api-key are gone" in caplog.text
