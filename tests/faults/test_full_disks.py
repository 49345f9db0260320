"""Disks that are full: that of the controller's state, and the workspace of a session."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from ..support.counting import FILE, counting
from ..support.observedrun import ObservedRun
from ..support.smalldisk import SmallDisk, small_disk

MIB = 1024 * 1024
CALLERS = 3
LATEST_S = 1.0
FULL_S = 1.5
FULL = frozenset({"infrastructure_error"})
"""What a call is told that could not be put on record; it has done nothing."""

pytestmark = pytest.mark.anyio


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if os.geteuid():
        pytest.skip("only root can mount a file system")
    with small_disk(tmp_path / "state", 24 * MIB) as disk:
        yield disk


async def full_for(disk: SmallDisk, seconds: float) -> None:
    """Let a disk be full for a while, also of what is given back meanwhile."""
    end_s = anyio.current_time() + seconds
    while anyio.current_time() < end_s:
        await anyio.to_thread.run_sync(disk.fill)
        await anyio.sleep(0.02)


async def test_without_room_for_the_record_nothing_new_is_done_and_nothing_is_lost(
    disk: SmallDisk, folder: Path, order: random.Random
) -> None:
    async with ObservedRun(folder) as run:
        callers = await run.callers_of(CALLERS, allowed=FULL)
        async with counting(*callers):
            await anyio.sleep(order.uniform(0, LATEST_S))
            await full_for(disk, FULL_S)
            async with run.served.http() as http:
                refused = await http.post("/mcp/v1/sessions", json={"reuse": False})
                assert refused.status_code == 500, refused.text
                assert "room" in refused.text or "disk space" in refused.text
                assert (await http.get("/mcp/v1/sessions")).status_code == 200
                assert (await http.get("/healthz")).status_code == 200
            disk.make_room()
        assert any(caller.answers["infrastructure_error"] for caller in callers)
        await run.check()
        assert len(run.live) == CALLERS
        await run.close()


async def test_a_controller_that_is_killed_on_a_full_disk_finds_its_sessions_when_there_is_room(
    disk: SmallDisk, folder: Path, order: random.Random
) -> None:
    async with ObservedRun(folder) as run:
        callers = await run.callers_of(CALLERS, allowed=FULL)
        for caller in callers:
            caller.may_be_cut = True
        async with counting(*callers):
            await anyio.sleep(order.uniform(0, LATEST_S))
            await full_for(disk, order.uniform(0.1, FULL_S))
            run.kill()
        try:  # there is not even room for what it notes as it starts
            with pytest.raises(AssertionError, match="the controller did not start"):
                await run.start()
            last = (folder / "serve.log").read_text()[-1000:]
            assert "disk space" in last or "room" in last, last
            assert "Move it away" not in last, last
        finally:
            disk.make_room()
        await run.start()
        await run.check()
        assert len(run.live) == CALLERS
        await run.close()


async def test_a_session_that_is_closed_while_its_files_cannot_be_kept_says_so(
    disk: SmallDisk, folder: Path
) -> None:
    async with ObservedRun(folder) as run:
        (caller,) = await run.callers_of(1, workspace="w")
        closed = await caller.http.delete(caller.url)
        assert closed.json()["state"] == "closed"
        run.callers.clear()
        (caller,) = await run.callers_of(1, workspace="w")
        await caller.http.put(f"{caller.url}/files/new.txt", content=os.urandom(MIB))
        await full_for(disk, 0.1)
        closed = await caller.http.delete(caller.url)
        print(closed.text)
        disk.make_room()
        run.callers.clear()
        (caller,) = await run.callers_of(1, workspace="w")
        assert (await caller.http.get(f"{caller.url}/files/new.txt")).status_code == 404
        assert (await caller.http.delete(caller.url)).json()["state"] == "closed"
        run.callers.clear()
        await run.aftermath.check(run.served)


async def test_a_full_workspace_refuses_what_is_new_and_keeps_what_it_has(
    folder: Path, order: random.Random
) -> None:
    async with ObservedRun(folder) as run:
        callers = await run.callers_of(2)
        full, _ = callers
        async with counting(*callers):
            await anyio.sleep(order.uniform(0, LATEST_S))
            filled = await full.shell("cat /dev/zero > ballast")
            assert filled["exit_code"] == 1
            assert "No space left" in filled["stderr"]
            answer = await full.http.put(f"{full.url}/files/{FILE}", content=bytes(MIB))
            assert answer.status_code == 507, answer.text
            assert "no_space" in answer.text or "space" in answer.json()["detail"]
        listed = await full.shell("find . -type f -size -1024k -o -name ballast")
        assert sorted(listed["stdout"].split()) == ["./ballast", f"./{FILE}"]
        await run.check()  # its file is what it was
        assert (await full.shell("rm ballast"))["exit_code"] == 0
        answer = await full.http.put(f"{full.url}/files/more", content=bytes(MIB))
        assert answer.status_code == 201, answer.text
        await run.close()
