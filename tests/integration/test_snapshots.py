"""Snapshots of the workspace inside a container: its own tmpfs, its uid, its limits."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from sandbox.runtimes.docker.runtime import DockerRuntime

from ..support import pictures, snapshotrun, treechanges
from ..support.containers import Container, container
from ..support.served import RUNTIME
from ..support.supervisorprocess import run_command

pytestmark = pytest.mark.anyio

SEQUENCES = 60 if RUNTIME != "runsc" else 15


@pytest.fixture
async def box(engine: DockerRuntime) -> AsyncIterator[Container]:
    async with container(engine) as made:
        yield made


async def inside(box: Container, task: str, argument: int = 0) -> dict[str, Any]:
    """Run a task of ``snapshotrun`` in a container."""
    modules = [Path(str(module.__file__)).read_text() for module in (pictures, treechanges)]
    source = "\n".join([*modules, f"TASK, ARGUMENT = {task!r}, {argument}"])
    source = "from __future__ import annotations\n" + "\n".join(
        [source, Path(str(snapshotrun.__file__)).read_text()]
    ).replace("from __future__ import annotations\n", "")
    async with box.link() as link:
        out, err, ending = await run_command(link, source.encode(), argv=["python3", "-"])
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
