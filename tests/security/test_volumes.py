"""Attacks on what sessions share with the host, with each other, and with their own next one."""

from __future__ import annotations

import io
import os
import resource
import shutil
import tarfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from sandbox import workspaces
from sandbox.cli.wiring import controller
from sandbox.config import Settings
from sandbox.errors import ConfigError, Conflict, NotFound, PolicyNotEnforced, SandboxError
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.workspaces import archive
from sandbox.workspaces.store import WorkspaceStore

from .conftest import RUNTIME, Attacked, may_end_in
from .inside import attempt

SIZE = 16 * 1024 * 1024
LENT = """\
version: 1
description: A folder of the host.
limits: {memory: 512MiB, sessions: 16}
workspace: {size: 16MiB, inodes: 2048, persistent: true}
mounts: [{root: lent, path: folder, target: /data/folder}]
"""
KEPT = LENT.rpartition("mounts:")[0]

pytestmark = pytest.mark.anyio


class Lender:
    """A controller that lends a folder and keeps workspaces.

    Args:
        manager: Its sessions.
        folder: The folder of the host that its policy `lent` mounts.
        state: The state directory.
    """

    def __init__(self, manager: SessionManager, folder: Path, state: Path) -> None:
        self.manager = manager
        self.folder = folder
        self.state = state

    async def open(
        self, policy: str = "kept", workspace: str = "", principal: str = "ada"
    ) -> Attacked:
        caller = Caller(principal=principal)
        session = await self.manager.open(caller, policy=policy, workspace=workspace, reuse=False)
        return Attacked(session, self.manager, caller)

    async def close(self, attacked: Attacked) -> Any:
        return await self.manager.close(attacked.caller, attacked.session.session_id)

    def archives(self) -> int:
        """The bytes on disk of all archives."""
        return sum(path.stat().st_size for path in self.state.rglob("*.tar"))


@asynccontextmanager
async def lending(tmp_path: Path, **settings: Any) -> AsyncIterator[Lender]:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "lent.yaml").write_text(LENT)
    (policies / "kept.yaml").write_text(KEPT)
    folder = tmp_path / "lent" / "folder"
    folder.mkdir(parents=True)
    (folder / "file").write_text("the host's")
    (folder / "file").chmod(0o666)
    state = tmp_path / "state"
    chosen = {
        "state_dir": state,
        "runtime": RUNTIME,
        "policies": policies,
        "roots": {"lent": str(tmp_path / "lent")},
        **settings,
    }
    async with controller(Settings(**chosen), "run") as manager:
        yield Lender(manager, folder, state)


@pytest.fixture
async def lender(tmp_path: Path) -> AsyncIterator[Lender]:
    async with lending(tmp_path) as lender:
        yield lender


def change_everything(folder: str) -> dict[str, Any]:
    import ctypes
    import os

    libc = ctypes.CDLL(None, use_errno=True)
    file = f"{folder}/file"

    def written(path: str) -> Callable[[], Any]:
        return lambda: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))

    def mounted(flags: int, target: str) -> Callable[[], Any]:
        return lambda: libc.mount(b"none", target.encode(), None, flags, None)

    tries = {
        "write": written(file),
        "by /proc": written(f"/proc/self/root{file}"),
        "truncate": lambda: os.truncate(file, 0),
        "create": lambda: os.mkdir(f"{folder}/new"),
        "unlink": lambda: os.unlink(file),
        "rename": lambda: os.rename(file, f"{folder}/other"),
        "chmod": lambda: os.chmod(file, 0o600),
        "chmod of the folder": lambda: os.chmod(folder, 0o700),
        "link": lambda: os.link(file, "/workspace/linked"),
        "times": lambda: os.utime(file, (1, 1)),
        "remount": mounted(32, folder),
        "bind": mounted(4096, "/workspace"),
    }
    return {name: attempt(each) for name, each in tries.items()}


async def test_a_folder_cannot_be_changed_from_inside(lender: Lender) -> None:
    """Policy rule mounts: read-only is the mount's, whatever the modes of the files say."""
    lender.folder.chmod(0o1777)  # sticky, so that it may be mounted at all
    attacked = await lender.open("lent")
    answers = await attacked.attack(change_everything, "/data/folder")
    if attacked.gvisor:
        del answers["truncate"]  # it says that it did, and did not: see below
    assert {name for name, answer in answers.items() if answer in (None, 0)} == set()
    assert (lender.folder / "file").read_text() == "the host's"
    assert [path.name for path in lender.folder.iterdir()] == ["file"]
    assert (await attacked.shell("cat /data/folder/file")).stdout == "the host's"


async def test_set_id_programs_and_devices_of_a_folder_do_nothing(lender: Lender) -> None:
    """Policy rule mounts: nosuid and nodev, and no privileges to gain anyway."""
    program = lender.folder / "program"
    shutil.copy("/usr/bin/id", program)
    program.chmod(0o6755)
    os.mknod(lender.folder / "memory", 0o020666, os.makedev(1, 1))
    os.mknod(lender.folder / "null", 0o020666, os.makedev(1, 3))
    attacked = await lender.open("lent")
    told = await attacked.shell("id -u; /data/folder/program -u")
    own, raised, *_ = [*told.stdout.split(), "refused"]
    assert raised in (own, "refused")
    for device in ("memory", "null"):
        opened = await attacked.shell(f"head -c 1 /data/folder/{device} && echo opened")
        assert "opened" not in opened.stdout


async def test_a_link_in_a_folder_leads_into_the_sandbox(lender: Lender, tmp_path: Path) -> None:
    """Invariant 2: what a link names is looked for inside, where the host's files are not."""
    (tmp_path / "secret").write_text("the host's secret")
    (lender.folder / "absolute").symlink_to(tmp_path / "secret")
    (lender.folder / "climbing").symlink_to("../../secret")
    (lender.folder / "hosts").symlink_to("/etc/shadow")
    attacked = await lender.open("lent")
    told = await attacked.shell("cd /data/folder; cat absolute climbing hosts ../secret")
    assert told.stdout == ""


async def test_a_path_swapped_after_the_look_opens_no_session(
    lender: Lender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policy rule mounts: the directory inside is the one that was looked at, or there is none."""
    if RUNTIME == "runsc":
        return  # gVisor's mounts have inodes of their own: docs/volumes.md says so
    runtime, moved = lender.manager.runtime, tmp_path / "moved"
    start = runtime.start
    (tmp_path / "secret").mkdir()
    for swap in (
        lambda: lender.folder.symlink_to(tmp_path / "secret"),
        lambda: lender.folder.mkdir(),
    ):

        async def swapped(container_id: str, swap: Callable[[], None] = swap) -> None:
            lender.folder.rename(moved)
            swap()
            await start(container_id)

        monkeypatch.setattr(runtime, "start", swapped)
        with pytest.raises(PolicyNotEnforced, match="directory"):
            await lender.open("lent")
        if lender.folder.is_symlink():
            lender.folder.unlink()
        else:
            lender.folder.rmdir()
        moved.rename(lender.folder)
    monkeypatch.setattr(runtime, "start", start)
    await lender.open("lent")


async def test_a_link_in_the_place_of_a_folder_is_not_mounted(
    lender: Lender, tmp_path: Path
) -> None:
    """Policy rule mounts: no link is followed anywhere in a path, before a container is made."""
    (tmp_path / "secret" / "folder").mkdir(parents=True)
    lender.folder.rename(tmp_path / "moved")
    lender.folder.symlink_to("/etc")
    with pytest.raises(ConfigError, match="symbolic link"):
        await lender.open("lent")
    lender.folder.unlink()
    (tmp_path / "lent").rename(tmp_path / "was-lent")
    (tmp_path / "lent").symlink_to(tmp_path / "secret")
    with pytest.raises(ConfigError, match="symbolic link"):
        await lender.open("lent")


def hostile_archive(target: Path) -> bytes:
    """What a supervisor that lies could give as its workspace."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.GNU_FORMAT) as tar:

        def add(
            name: str, kind: bytes = tarfile.REGTYPE, link: str = "", text: bytes = b""
        ) -> None:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size, member.mode = kind, link, len(text), 0o777
            tar.addfile(member, io.BytesIO(text))

        add("escape", tarfile.SYMTYPE, str(target))
        add("escape/through-a-link", text=b"x")
        add(f"{target}/absolute", text=b"x")
        add(f"../../../../../..{target}/climbing", text=b"x")
        add("../climbing", text=b"x")
        add("hard", tarfile.LNKTYPE, "/etc/passwd")
        add("climbing-hard", tarfile.LNKTYPE, "../../etc/passwd")
        add("device", tarfile.CHRTYPE)
        add("a\nname", text=b"x")
        add("/opt/sandbox/bridge.py", text=b"raise SystemExit")
        add("inside", text=b"harmless")
    return data.getvalue()


async def test_an_archive_that_lies_reaches_nothing_outside_its_own_container(
    lender: Lender, tmp_path: Path
) -> None:
    """Invariant 3: the controller extracts nothing, and tar inside is the session's own uid."""
    target = tmp_path / "target"
    target.mkdir()
    target.chmod(0o777)
    store = WorkspaceStore(lender.state / "workspaces", quota_bytes=SIZE, most=9)
    held = store.take("ada", "w", "s-x")
    with held.draft(SIZE) as draft:
        draft.write(hostile_archive(target))
        draft.save(time.time())
    held.release()
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    with may_end_in("invalid_request"):
        attacked = await lender.open(workspace="w")
        assert await attacked.is_alive()
        await lender.close(attacked)
    after = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} - set(before)
    assert [path for path in after if path.parts[0] != "state"] == []
    assert list(target.iterdir()) == []


async def test_an_archive_without_an_end_stops_at_its_bound(
    lender: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 3: neither disk nor memory of the controller grows beyond a workspace's bound."""
    attacked = await lender.open(workspace="w")
    await attacked.shell("echo kept > file")
    kept = await lender.close(attacked)
    assert kept.workspace_problem == ""
    attacked = await lender.open(workspace="w")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    monkeypatch.setattr(archive, "PACK", ("/bin/cat", "/dev/zero"))
    closed = await lender.close(attacked)
    assert "bytes to keep" in closed.workspace_problem
    assert closed.workspace_saved_at == kept.workspace_saved_at
    assert lender.archives() == kept.workspace_bytes
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 64 * 1024
    monkeypatch.undo()
    attacked = await lender.open(workspace="w")
    assert (await attacked.shell("cat file")).stdout == "kept\n"


async def test_a_session_that_stalls_its_save_is_closed_in_time_and_told(
    lender: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 8: a hostile session can lose its own files, and it is said; nobody waits long."""
    attacked = await lender.open(workspace="w")
    await attacked.shell("echo kept > file")
    kept = await lender.close(attacked)
    attacked = await lender.open(workspace="w")
    await attacked.shell("echo lost > file")
    monkeypatch.setattr(archive, "SILENCE_S", 2.0)
    monkeypatch.setattr(archive, "PACK", ("/bin/sh", "-c", "echo begun; sleep 60"))
    with anyio.fail_after(20):
        closed = await lender.close(attacked)
    assert "for 2 s" in closed.workspace_problem
    assert closed.workspace_saved_at == kept.workspace_saved_at
    assert lender.archives() == kept.workspace_bytes
    monkeypatch.undo()
    attacked = await lender.open(workspace="w")  # which it does not hold any more
    assert (await attacked.shell("cat file")).stdout == "kept\n"


async def test_a_session_that_kills_or_stops_its_save_ends_all_the_same(
    lender: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 8: what is not saved whole is not kept at all, whatever the session does to tar."""
    monkeypatch.setattr(archive, "SILENCE_S", 2.0)
    for signal in ("KILL", "STOP"):
        attacked = await lender.open(workspace=signal.lower())
        await attacked.shell(
            f"head -c 12M /dev/urandom > file; (while :; do pkill -{signal} -x tar ||"
            ' for p in /proc/[0-9]*; do read c < $p/comm && [ "$c" = tar ] &&'
            f" kill -{signal} ${{p#/proc/}}; done; done) >/dev/null 2>&1 & disown"
        )
        with anyio.fail_after(30):
            closed = await lender.close(attacked)
        size = lender.archives()
        assert size in (0, closed.workspace_bytes)
        assert (closed.workspace_problem == "") == (closed.workspace_bytes > 12 * 1024 * 1024)
        attacked = await lender.open(workspace=signal.lower())
        assert await attacked.is_alive()
        await lender.close(attacked)
        await lender.manager.delete_workspace(attacked.caller, signal.lower())


async def test_trees_that_make_long_archives_are_kept_whole_or_refused_whole(
    lender: Lender,
) -> None:
    """Policy rule workspace: names, depth, holes and counts cannot pass the bound in silence."""
    attacked = await lender.open(workspace="w")

    def grow() -> int:
        import os

        os.chdir("/workspace")
        for number in range(60):
            with open(f"sparse-{number}", "wb") as file:
                file.truncate(256 * 1024 * 1024)
            os.symlink("../" * 1000, f"link-{number}")
        here = os.open(".", os.O_RDONLY)
        for _ in range(700):
            os.mkdir("d" * 255, dir_fd=here)
            below = os.open("d" * 255, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        return 1

    assert await attacked.attack(grow) == 1
    closed = await lender.close(attacked)
    bound = SIZE + 2048 * 2048
    assert lender.archives() <= bound
    if not closed.workspace_problem:
        again = await lender.open(workspace="w")
        assert (await again.shell("find . | wc -l")).stdout.strip() == str(1 + 120 + 700)
    else:
        assert closed.workspace_saved_at is None
    assert lender.archives() <= bound


async def test_a_principals_quota_holds_over_all_its_workspaces(tmp_path: Path) -> None:
    """Invariant 3: the controller's disk is bounded for each principal, on any filesystem."""
    async with lending(tmp_path, workspace_quota_bytes=12 * 1024 * 1024) as lender:
        problems = []
        for name in ("one", "two"):
            attacked = await lender.open(workspace=name)
            await attacked.shell("head -c 8M /dev/urandom > file")
            problems.append((await lender.close(attacked)).workspace_problem)
        assert problems[0] == ""
        assert "together" in problems[1]
        assert lender.archives() < 12 * 1024 * 1024
        other = await lender.open(workspace="one", principal="grace")
        await other.shell("head -c 8M /dev/urandom > file")
        assert (await lender.close(other)).workspace_problem == ""


async def test_of_sessions_that_race_for_a_workspace_one_gets_it(lender: Lender) -> None:
    """Invariant 7: two sessions never have one workspace."""
    got: list[Attacked] = []
    refused: list[SandboxError] = []

    async def race() -> None:
        try:
            got.append(await lender.open(workspace="w"))
        except SandboxError as exc:
            refused.append(exc)

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(race)
    assert len(got) == 1
    assert {type(exc) for exc in refused} == {Conflict}
    assert all(got[0].session.session_id in exc.message for exc in refused)


async def test_a_foreign_workspace_looks_like_an_absent_one(lender: Lender) -> None:
    """Invariant 6: names of others' workspaces cannot be guessed, taken, listed or deleted."""
    attacked = await lender.open(workspace="secret")
    await attacked.shell("echo ada > file")
    stranger = Caller(principal="stranger")
    told: list[str] = []
    for name in ("secret", "absent"):
        with pytest.raises(NotFound) as caught:
            await lender.manager.delete_workspace(stranger, name)
        told.append(str(caught.value).replace(name, "…"))
    assert told[0] == told[1]
    assert lender.manager.workspaces(stranger) == []
    other = await lender.open(workspace="secret", principal="stranger")
    assert (await other.shell("find . -name file")).stdout == ""
    assert (await attacked.shell("cat file")).stdout == "ada\n"


async def test_nothing_is_left_of_a_deleted_workspace_or_of_another_session(
    lender: Lender,
) -> None:
    """Invariant 7: a name that was deleted begins empty, and a session without one does too."""
    attacked = await lender.open(workspace="w")
    await attacked.shell("echo left > file; echo left > /tmp/file; echo left > /dev/shm/file")
    await lender.close(attacked)
    for workspace in ("", "other"):
        fresh = await lender.open(workspace=workspace)
        assert (await fresh.shell("find /workspace /tmp /dev/shm -name file")).stdout == ""
    await lender.manager.delete_workspace(attacked.caller, "w")
    assert list(lender.state.glob("workspaces/*/w")) == []
    again = await lender.open(workspace="w")
    assert (await again.shell("find /workspace /tmp /dev/shm -name file")).stdout == ""


def test_the_controllers_half_of_workspaces_opens_no_archive() -> None:
    """Invariant 3: no module of the controller that keeps workspaces can read an archive."""
    folder = Path(workspaces.__file__).parent
    for path in folder.glob("*.py"):
        text = path.read_text()
        assert not [word for word in ("tarfile", "zipfile", "unpack_archive") if word in text]
