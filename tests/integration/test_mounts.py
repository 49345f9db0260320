"""Folders of the host in a sandbox, on a real engine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio.to_thread
import docker
import pytest

from sandbox.errors import ConfigError, NotFound, SessionLost
from sandbox.sessions.models import Caller

from ..support.controllers import Controllers, run, shell, text_of

ADA = Caller("ada")
SCRATCH = """\
version: 1
description: A folder to share.
limits: {memory: 512MiB}
workspace: {size: 64MiB}
mounts:
  - {root: scratch, target: /mnt/scratch, read_only: false}
"""

pytestmark = pytest.mark.anyio


def shell_out(*argv: str) -> None:
    subprocess.run(argv, check=True)


@pytest.fixture
def datasets(controllers: Controllers, tmp_path: Path) -> Iterator[Path]:
    """A root of that name with a file in it, and a policy that writes to another root."""
    folder = tmp_path / "datasets"
    folder.mkdir()
    (folder / "iris.csv").write_text("setosa,5.1\n")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    shell_out("mount", "-t", "tmpfs", "-o", "nosuid,nodev,mode=1777,size=1m", "none", str(scratch))
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "scratch.yaml").write_text(SCRATCH)
    controllers.policies = [policies]
    controllers.settings = {
        "roots": {
            "datasets": str(folder),
            "scratch": {"path": str(scratch), "writable": True},
        }
    }
    yield folder
    shell_out("umount", str(scratch))


@pytest.fixture
def volumes() -> Iterator[set[str]]:
    """No volume is left on the engine that was not there before."""
    client = docker.from_env()
    before = {volume.name for volume in client.volumes.list()}
    yield before
    left = {volume.name for volume in client.volumes.list()} - before
    client.close()
    assert left == set()


async def test_the_ready_policy_for_datasets_shows_them_read_only(
    controllers: Controllers, datasets: Path, volumes: set[str]
) -> None:
    async with controllers.running() as manager:
        session = await manager.open(ADA, policy="readonly-data")
        told = await run(session, "print(open('/data/datasets/iris.csv').read())")
        assert text_of(told).strip() == "setosa,5.1"
        for attempt in ("touch", "mkdir", "rm -rf", "chmod 777"):
            result = await shell(session, f"{attempt} /data/datasets/iris.csv")
            assert result.exit_code != 0, attempt
        checks = session.info().checks_passed
        await manager.close(ADA, session.session_id)
    assert checks > 30
    assert (datasets / "iris.csv").read_text() == "setosa,5.1\n"


async def test_a_writable_root_is_shared_between_sessions(
    controllers: Controllers, datasets: Path, volumes: set[str], tmp_path: Path
) -> None:
    async with controllers.running() as manager:
        first = await manager.open(ADA, policy="scratch")
        assert (await shell(first, "echo kept > /mnt/scratch/note")).exit_code == 0
        await manager.close(ADA, first.session_id)
        second = await manager.open(Caller("grace"), policy="scratch")
        assert (await shell(second, "cat /mnt/scratch/note")).stdout == "kept\n"
        full = await shell(second, "head -c 9999999 /dev/zero > /mnt/scratch/big")
        assert "No space left" in full.stderr
    assert (tmp_path / "scratch" / "note").read_text() == "kept\n"


async def test_what_is_mounted_within_a_folder_is_not_shown(
    controllers: Controllers, datasets: Path, volumes: set[str]
) -> None:
    inner = datasets / "inner"
    inner.mkdir()
    await anyio.to_thread.run_sync(shell_out, "mount", "-t", "tmpfs", "none", str(inner))
    try:
        (inner / "secret").write_text("x")
        async with controllers.running() as manager:
            session = await manager.open(ADA, policy="readonly-data")
            result = await shell(session, "find /data/datasets/inner | wc -l")
            assert result.stdout.strip() == "1"
            await manager.close(ADA, session.session_id)
    finally:
        await anyio.to_thread.run_sync(shell_out, "umount", str(inner))


async def test_a_root_that_is_not_there_or_not_named_opens_no_session(
    controllers: Controllers, datasets: Path, tmp_path: Path
) -> None:
    async with controllers.running() as manager:
        datasets.rename(tmp_path / "elsewhere")
        with pytest.raises(ConfigError, match="No such file"):
            await manager.open(ADA, policy="readonly-data")
        assert await controllers.containers() == []
    controllers.settings = {}
    async with controllers.running() as manager:
        with pytest.raises(ConfigError, match="'datasets', which this controller does not have"):
            await manager.open(ADA, policy="readonly-data")


async def test_a_session_is_taken_back_with_its_folders_as_long_as_they_are_lent(
    controllers: Controllers, datasets: Path, volumes: set[str], tmp_path: Path
) -> None:
    async with controllers.running(keep=True) as manager:
        session_id = (await manager.open(ADA, policy="readonly-data")).session_id
    async with controllers.running(keep=True) as manager:
        session = await manager.get(ADA, session_id)
        assert (await shell(session, "cat /data/datasets/iris.csv")).stdout == "setosa,5.1\n"
    controllers.settings = {"roots": {"datasets": str(tmp_path / "scratch")}}
    async with controllers.running() as manager:
        with pytest.raises((SessionLost, NotFound), match="mounts"):
            await manager.get(ADA, session_id)
