"""Snapshots of the workspace inside a container: its own tmpfs, its uid, its limits."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from sandbox.link.link import Link
from sandbox.runtimes.docker.runtime import DockerRuntime

from ..support.containers import Container, container
from ..support.served import RUNTIME
from ..support.snapshotprogram import program
from ..support.supervisorprocess import Cells, run_command

pytestmark = pytest.mark.anyio

SEQUENCES = 60 if RUNTIME != "runsc" else 15


@pytest.fixture
async def box(engine: DockerRuntime) -> AsyncIterator[Container]:
    async with container(engine) as made:
        yield made


async def inside(box: Container, task: str, argument: int = 0) -> dict[str, Any]:
    """Run a task of ``snapshotrun`` in a container."""
    async with box.link() as link:
        out, err, ending = await run_command(
            link, program(task, argument).encode(), argv=["python3", "-"]
        )
    assert ending["exit_code"] == 0, err.decode()
    return json.loads(out.decode().strip().splitlines()[-1])


async def test_random_changes_are_undone_to_the_letter(box: Container) -> None:
    with anyio.fail_after(300):
        assert await inside(box, "sequences", SEQUENCES) == {"different": []}


async def test_what_has_not_changed_is_not_copied_in_a_container_either(box: Container) -> None:
    with anyio.fail_after(300):
        found = await inside(box, "figures", 1000)
    print(json.dumps(found))
    for each in found.values():
        assert each["take of what is the same"][2] == 0
        assert each["restore of what is the same"][2] == 0
        assert each["take after it"][2] == 0
        assert each["restore of all"][2] == each["first take"][2] >= 1_000_000


async def test_a_checkpoint_with_files_puts_them_back_with_the_state(box: Container) -> None:
    with anyio.fail_after(120):
        async with box.link() as link:
            await link.call("kernel.start", kernel_id="k", name="python3")
            cells = Cells(link, "k")
            await cells.run(
                "import os, pathlib\nx = 1\nos.makedirs('data/deep')\n"
                "_ = pathlib.Path('data/deep/file').write_text('one')\nos.mkdir('empty')"
            )
            kept = await link.call("kernel.checkpoint", kernel_id="k", name="before", files=True)
            assert kept["files"] is True
            for _ in range(2):  # as often as is wanted
                await cells.run(
                    "import shutil\nx = 2\nshutil.rmtree('data'); os.rmdir('empty')\n"
                    "_ = pathlib.Path('data').write_text('a file now')"
                )
                await link.call("kernel.rollback", kernel_id="k", name="before")
                seen = "print(x, pathlib.Path('data/deep/file').read_text(), os.listdir('empty'))"
                assert await cells.run(seen) == "1 one []\n"
            assert await keepers(link) == 1
            await link.call("kernel.drop_checkpoint", kernel_id="k", name="before")
            while await keepers(link):
                await anyio.sleep(0.01)
            out, _, _ = await run_command(link, command="ls -A")
            assert b".sandbox-restore" not in out


async def keepers(link: Link) -> int:
    """How many processes keep snapshots."""
    command = "grep -l 'snapshotkeepe[r]' /proc/[0-9]*/cmdline 2>/dev/null | wc -l"
    out, _, _ = await run_command(link, command=command)
    return int(out)
