"""Named workspaces on a real engine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sandbox.errors import (
    Conflict,
    InfrastructureError,
    InvalidRequest,
    NotFound,
    NotPermitted,
    SandboxError,
    SessionLost,
)
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session
from sandbox.workspaces import autosave as keeping_module

from ..support.controllers import Controllers, run, shell, text_of
from ..support.waiting import until

ADA = Caller("ada")
GRACE = Caller("grace")
KEEPING = """\
version: 1
description: Files that come back.
limits: {memory: 512MiB, sessions: 8}
workspace: {size: SIZE, inodes: 4096, persistent: true}
"""

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def policies(controllers: Controllers, tmp_path: Path) -> Path:
    """Policies that keep files, a large one and a small one."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "keeping.yaml").write_text(KEEPING.replace("SIZE", "64MiB"))
    (folder / "small.yaml").write_text(KEEPING.replace("SIZE", "4MiB"))
    controllers.policies = [folder]
    return folder


async def opened(manager: SessionManager, name: str = "w", caller: Caller = ADA) -> Session:
    return await manager.open(caller, policy="keeping", workspace=name)


async def test_the_files_of_a_workspace_come_back(controllers: Controllers) -> None:
    make = (
        "mkdir -p deep/er; echo text > deep/er/file; printf '#!/bin/sh\\necho ran' > run;"
        "chmod 750 run; ln -s deep/er/file link; ln run twin; touch 'odd\nname' -- '-x'; mkfifo f;"
        "truncate -s 50M sparse; mkdir ro; touch ro/x; chmod 500 ro; touch -d 2001-02-03 old"
    )
    look = (
        "cat link; ./run; [ twin -ef run ] && echo same; [ -p f ] && echo fifo;"
        "[ -e 'odd\nname' ] && [ -e ./-x ] && echo odd; du -k sparse | cut -f1;"
        "find ro run old -printf '%f %m %TY\\n' | sort"
    )
    async with controllers.running() as manager:
        first = await opened(manager)
        assert not first.info().is_default
        assert (await shell(first, make)).exit_code == 0
        await run(first, "open('from-a-cell', 'w').write('x')")
        closed = await manager.close(ADA, first.session_id)
        assert (closed.workspace_name, closed.workspace_problem) == ("w", "")
        assert closed.workspace_saved_at is not None
        if controllers.runtime != "runsc":  # which tells nobody of holes
            assert closed.workspace_bytes < 2 * 1024 * 1024
    async with controllers.running() as manager:
        (info,) = manager.workspaces(ADA)
        assert (info.name, info.size_bytes, info.session_id) == ("w", closed.workspace_bytes, "")
        second = await opened(manager)
        found = (await shell(second, look)).stdout.splitlines()
        assert found[:5] == ["text", "ran", "same", "fifo", "odd"]
        modes = {line.rsplit(" ", 1)[0]: line[-4:] for line in found[6:]}
        assert {"ro 500", "run 750", "old 644"} <= modes.keys()
        assert modes["old 644"] == "2001"
        assert text_of(await run(second, "print(open('from-a-cell').read())")).strip() == "x"
        await manager.close(ADA, second.session_id)
    assert {path.stat().st_mode & 0o777 for path in controllers.state.glob("workspaces/*/*/*")} == {
        0o600
    }


async def test_a_workspace_is_one_sessions_at_a_time_and_its_principals_alone(
    controllers: Controllers,
) -> None:
    async with controllers.running() as manager:
        first = await opened(manager)
        assert await opened(manager) is first
        with pytest.raises(Conflict, match=first.session_id):
            await manager.open(ADA, policy="keeping", workspace="w", reuse=False)
        with pytest.raises(Conflict, match=first.session_id):
            await manager.delete_workspace(ADA, "w")
        other = await opened(manager, caller=GRACE)
        assert (await shell(other, "find . -type f | wc -l; touch graces")).stdout == "0\n"
        with pytest.raises(NotFound):
            await manager.delete_workspace(Caller("nobody"), "w")
        assert manager.workspaces(Caller("nobody")) == []
        assert [each.session_id for each in manager.workspaces(GRACE)] == [other.session_id]


async def test_what_cannot_be_a_workspace_is_refused_before_anything_runs(
    controllers: Controllers,
) -> None:
    async with controllers.running() as manager:
        for name in ("..", "../x", "A", "a/b", ".x", "x" * 65, "a\n", " "):
            with pytest.raises(InvalidRequest):
                await opened(manager, name)
        with pytest.raises(NotPermitted, match="persistent"):
            await manager.open(ADA, policy="ci-eval", workspace="w")
        session = await opened(manager)
        await shell(session, "head -c 20M /dev/urandom > big")
        await manager.close(ADA, session.session_id)
        with pytest.raises(InvalidRequest, match="does not fit"):
            await manager.open(ADA, policy="small", workspace="w")
        assert await controllers.containers() == []
        again = await opened(manager)  # it is as it was, and free
        assert (await shell(again, "wc -c < big")).stdout.strip() == "20971520"


async def test_a_deleted_workspace_begins_empty(controllers: Controllers) -> None:
    async with controllers.running() as manager:
        session = await opened(manager)
        await shell(session, "touch here")
        await manager.close(ADA, session.session_id)
        await manager.delete_workspace(ADA, "w")
        assert manager.workspaces(ADA) == []
        assert list(controllers.state.glob("workspaces/*/*")) == []
        session = await opened(manager)
        assert (await shell(session, "find . -name here")).stdout == ""


async def test_a_lost_session_leaves_its_last_checkpoint_and_says_so(
    controllers: Controllers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping_module, "CHECKPOINT_S", 0.2)
    async with controllers.running() as manager:
        session = await opened(manager)
        await shell(session, "echo kept > file")
        touched = time.time()
        await until(lambda: (session.info().workspace_saved_at or 0) > touched, 60)
        await controllers.engine.remove(session.container_id or "")
        await until(lambda: manager.list(ADA) == [])
        with pytest.raises(SessionLost, match="workspace 'w' is kept as it was at 20"):
            await manager.get(ADA, session.session_id)
        session = await opened(manager)
        assert (await shell(session, "cat file")).stdout == "kept\n"


async def test_a_controller_that_comes_back_keeps_the_workspace_for_its_session(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as manager:
        session_id = (await opened(manager)).session_id
    async with controllers.running("stdio") as other:
        with pytest.raises(Conflict, match=session_id):
            await opened(other)
    async with controllers.running() as manager:
        session = await manager.get(ADA, session_id)
        assert session.info().workspace_name == "w"
        await shell(session, "touch after")
    async with controllers.running("stdio") as other:
        session = await opened(other)
        assert (await shell(session, "find . -name after")).stdout == "./after\n"


async def test_a_damaged_archive_is_never_read_in(controllers: Controllers) -> None:
    async with controllers.running() as manager:
        session = await opened(manager)
        await shell(session, "head -c 3M /dev/urandom > file")
        await manager.close(ADA, session.session_id)
        (archive,) = controllers.state.glob("workspaces/*/w/*.tar")
        whole = archive.read_bytes()
        for damaged in (whole[:-1], whole[:1000] + b"x" + whole[1001:], b""):
            archive.write_bytes(damaged)
            with pytest.raises(SandboxError, match=r"damaged|does not fit") as caught:
                await opened(manager)
            assert isinstance(caught.value, (InfrastructureError, InvalidRequest))
            assert await controllers.containers() == []
        archive.write_bytes(whole)
        session = await opened(manager)
        assert (await shell(session, "wc -c < file")).stdout.strip() == "3145728"
