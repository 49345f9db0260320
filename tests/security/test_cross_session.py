"""Attacks of one session on another: nothing is shared but the kernel and the machine's time."""

from __future__ import annotations

import statistics
import time

import anyio
import pytest

from sandbox.errors import SandboxError
from sandbox.sessions.models import Caller

from .conftest import Attacked, Opener
from .inside import attempt

pytestmark = pytest.mark.anyio

ABSENT = "s-" + "a" * 26


async def error_of(operation: object) -> tuple[str, str]:
    """The class and the text of the error that an operation gives."""
    with pytest.raises(SandboxError) as caught:
        await operation  # type: ignore[misc]
    return type(caught.value).__name__, str(caught.value)


async def test_a_foreign_session_looks_like_an_absent_one(
    sandbox: Attacked, neighbour: Attacked
) -> None:
    """Invariant 6: for get, close and every prefix of an id, the answers differ in the id alone."""
    manager, stranger = sandbox.manager, sandbox.caller
    foreign = neighbour.session.session_id
    for ask in (manager.get, manager.close):
        kind, message = await error_of(ask(stranger, foreign))
        absent = await error_of(ask(stranger, ABSENT))
        assert (kind, message.replace(foreign, ABSENT)) == absent
    for near in (foreign.upper(), foreign[:-1], foreign + "a", f" {foreign}", f"{foreign}\n"):
        assert (await error_of(manager.get(neighbour.caller, near)))[0] == "NotFound"
    assert await neighbour.is_alive()


async def test_a_foreign_execution_looks_like_an_absent_one(
    sandbox: Attacked, neighbour: Attacked
) -> None:
    """Invariant 6: an execution's id is no credential."""
    result = await neighbour.cell("print('the neighbour\\'s secret')")
    manager = sandbox.manager
    kind, message = await error_of(manager.execution(sandbox.caller, result.execution_id))
    absent = "e" * len(result.execution_id)
    expected = await error_of(manager.execution(sandbox.caller, absent))
    assert (kind, message.replace(result.execution_id, absent)) == expected
    assert (await neighbour.result_of(result.execution_id)).status == "ok"


async def test_lists_show_ones_own_sessions_alone(sandbox: Attacked, neighbour: Attacked) -> None:
    """Invariant 6: what others have open is not told."""
    mine = {info.session_id for info in sandbox.manager.list(sandbox.caller)}
    assert mine == {sandbox.session.session_id}
    assert sandbox.manager.list(Caller(principal="nobody-yet")) == []


async def test_session_ids_cannot_be_guessed(opener: Opener) -> None:
    """Invariant 6: ids are long, random, and share nothing with each other."""
    async with opener() as first, opener() as second:
        ids = [first.session.session_id, second.session.session_id]
        assert all(len(each) >= 26 for each in ids)
        assert sum(a == b for a, b in zip(*ids, strict=True)) < 12


async def test_every_session_has_a_uid_of_its_own(sandbox: Attacked, neighbour: Attacked) -> None:
    """Invariant 7: limits that the kernel counts by uid are counted by session."""

    def uid() -> object:
        import os

        return [os.getuid(), os.getgid(), os.getgroups()]

    first, second = await sandbox.attack(uid), await neighbour.attack(uid)
    assert first[0] != second[0]
    assert first[1] != second[1]
    assert min(first[0], second[0]) >= 100_000
    assert set(first[2]) <= {first[1]}


async def test_files_of_one_session_are_not_in_another(
    sandbox: Attacked, neighbour: Attacked
) -> None:
    """Invariant 7: /tmp, /workspace, /dev/shm and System V memory are the session's own."""

    def leave() -> object:
        import ctypes
        import os

        for folder in ("/tmp", "/workspace", "/dev/shm"):
            with open(f"{folder}/left-by-the-first", "w") as stream:
                stream.write("secret")
            os.chmod(f"{folder}/left-by-the-first", 0o666)  # noqa: S103  # what it is about
        return ctypes.CDLL(None).shmget(0x5EC3E7, 4096, 0o1666) >= 0

    def find() -> object:
        import ctypes
        import os

        found = [
            os.path.join(folder, name)
            for folder, _, names in os.walk("/")
            for name in names
            if name == "left-by-the-first"
        ]
        return {"files": found, "memory": ctypes.CDLL(None).shmget(0x5EC3E7, 4096, 0o666)}

    assert await sandbox.attack(leave)
    assert len((await sandbox.attack(find))["files"]) == 3
    assert await neighbour.attack(find) == {"files": [], "memory": -1}


async def test_nothing_is_left_for_the_next_session(opener: Opener) -> None:
    """Invariant 7: the same principal's next session starts empty: no file, process or variable."""

    def look() -> object:
        import os

        return {
            "files": [
                os.path.join(folder, name)
                for top in ("/workspace", "/tmp", "/dev/shm")
                for folder, _, names in os.walk(top)
                for name in names
                if "secret" in name
            ],
            "sleepers": [
                pid
                for pid in filter(str.isdigit, os.listdir("/proc"))
                if b"4711"
                in (attempt(lambda p=pid: open(f"/proc/{p}/cmdline", "rb").read()) or b"")
            ],
        }

    async with opener(principal="twice") as first:
        await first.cell("remembered = 1")
        await first.shell("touch secret /tmp/secret /dev/shm/secret; setsid sleep 4711 & sleep 0.1")
        before = await first.attack(look)
        assert len(before["files"]) == 3
        assert before["sleepers"]
        uid = (await first.shell("id -u")).stdout
    async with opener(principal="twice") as second:
        assert await second.attack(look) == {"files": [], "sleepers": []}
        assert (await second.cell("remembered")).status == "error"
        assert (await second.shell("id -u")).stdout != uid


async def test_loopback_and_abstract_sockets_are_not_shared(
    sandbox: Attacked, neighbour: Attacked
) -> None:
    """Invariant 1: a server of one session answers there, and nowhere else."""
    serve = (
        "import socket\n"
        "tcp = socket.create_server(('127.0.0.1', 47110))\n"
        "unix = socket.socket(socket.AF_UNIX); unix.bind('\\0first-session'); unix.listen()\n"
    )
    assert (await sandbox.cell(serve)).status == "ok"

    def connect() -> object:
        import socket

        with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
            return [
                attempt(lambda: tcp.connect(("127.0.0.1", 47110)) or "reached"),
                attempt(lambda: unix.connect("\0first-session") or "reached"),
            ]

    assert await sandbox.attack(connect) == ["reached", "reached"]
    assert await neighbour.attack(connect) == ["ECONNREFUSED", "ECONNREFUSED"]
    await sandbox.cell("tcp.close(); unix.close()")


async def test_processes_of_others_are_invisible_and_out_of_reach(
    sandbox: Attacked, neighbour: Attacked
) -> None:
    """Invariant 7: no pid of another session can be seen, signalled or opened."""

    def everything() -> object:
        import os
        import signal

        seen = []
        for pid in range(1, 5000):
            if isinstance(attempt(lambda p=pid: os.kill(p, 0)), type(None)):
                seen.append(pid)
        uids = {os.stat(f"/proc/{pid}").st_uid for pid in seen if os.path.exists(f"/proc/{pid}")}
        return {"uids": sorted(uids), "me": os.getuid(), "broadcast": signal.SIGCONT.value}

    answer = await sandbox.attack(everything)
    assert answer["uids"] == [answer["me"]]
    other = await neighbour.attack(everything)
    assert not set(answer["uids"]) & set(other["uids"])


async def test_watches_used_up_in_one_session_are_not_missed_in_another(
    victim: Attacked, neighbour: Attacked
) -> None:
    """Invariant 7: inotify instances are counted by uid, and so by session."""

    def hoard(limit: int) -> object:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        for made in range(limit):
            if libc.inotify_init1(0) < 0:
                return made
        return limit

    made = await victim.attack(hoard, 1000)
    assert made > 10
    assert await neighbour.attack(hoard, 5) == 5


async def test_a_spinning_session_leaves_its_neighbour_responsive(
    victim: Attacked, neighbour: Attacked
) -> None:
    """Policy rule limits.cpus: with one session spinning and flooding, another's cell is prompt."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: victim.shell("yes > /dev/null & yes & wait", timeout_s=6))
        await anyio.sleep(1)
        with anyio.fail_after(4):
            for number in range(5):
                result = await neighbour.cell(f"print({number})")
                assert result.status == "ok"
        tasks.cancel_scope.cancel()


async def test_a_foreign_session_is_answered_as_fast_as_an_absent_one(
    sandbox: Attacked, neighbour: Attacked
) -> None:
    """Invariant 6: not even the time of an answer tells whether somebody has such a session."""
    manager, stranger = sandbox.manager, sandbox.caller
    took: dict[str, list[float]] = {neighbour.session.session_id: [], ABSENT: []}
    for _ in range(400):
        for session_id, times in took.items():  # in turns: the machine's noise falls on both
            start = time.perf_counter()
            with pytest.raises(SandboxError):
                await manager.get(stranger, session_id)
            times.append(time.perf_counter() - start)
    foreign, absent = (statistics.median(times) for times in took.values())
    assert 0.5 < foreign / absent < 2


async def test_shared_memory_of_one_session_is_not_in_another(
    sandbox: Attacked, neighbour: Attacked
) -> None:
    """Invariant 7: System V segments, POSIX objects and their names are each session's own."""

    def put(text: str) -> object:
        import ctypes
        import os

        with open("/dev/shm/meeting-point", "w") as place:
            place.write(text)
        libc = ctypes.CDLL(None, use_errno=True)
        return [libc.shmget(0x5A4E, 4096, 0o1666), os.listdir("/dev/shm")]

    def look() -> object:
        import ctypes
        import os

        libc = ctypes.CDLL(None, use_errno=True)
        queues = os.listdir("/dev/mqueue") if os.path.exists("/dev/mqueue") else []
        return [libc.shmget(0x5A4E, 0, 0), os.listdir("/dev/shm"), queues]

    _, names = await neighbour.attack(put, "a secret")
    assert "meeting-point" in names
    segment, shared, queues = await sandbox.attack(look)
    assert (segment, queues) == (-1, [])
    assert "meeting-point" not in shared
    await neighbour.shell("rm /dev/shm/meeting-point")


async def test_pipes_used_up_in_one_session_are_not_missed_in_another(
    victim: Attacked, neighbour: Attacked
) -> None:
    """Policy rule limits: the pipe memory that Linux counts by uid is each session's own."""

    def hoard() -> object:
        import fcntl
        import os

        held, biggest = [], 0
        try:
            while len(held) < 400:
                ends = os.pipe()
                held.append(ends)
                biggest = max(biggest, fcntl.fcntl(ends[1], 1031, 1024 * 1024))  # F_SETPIPE_SZ
        except OSError:
            pass
        refused = attempt(lambda: fcntl.fcntl(held[-1][1], 1031, 1024 * 1024))
        return {"pipes": len(held), "biggest": biggest, "more": refused}

    def one_big_pipe() -> object:
        import fcntl
        import os

        return attempt(lambda: fcntl.fcntl(os.pipe()[1], 1031, 1024 * 1024))

    answer = await victim.attack(hoard)
    assert answer["pipes"] > 10
    if not victim.gvisor:
        assert answer["more"] == "EPERM", "the hoard reached the limit of its uid"
    assert await neighbour.attack(one_big_pipe) == 1024 * 1024
