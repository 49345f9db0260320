"""Attacks on what a session may consume. The neighbour's session and the controller must go on."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager

import anyio
import anyio.to_thread
import docker
import psutil
import pytest

from sandbox.outputs.collector import IMAGE_FACTOR

from .conftest import Attacked, Opener, may_end_in
from .inside import attempt

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
FATES = {False: {"alive"}, True: {"alive", "session_lost"}}
"""What may become of a session after a bomb, by whether gVisor runs it. The memory of
all processes is gVisor's: there the whole sandbox may end, which its caller is told."""


def the_sandbox_may_end(attacked: Attacked) -> AbstractContextManager[None]:
    """Under gVisor let the block end with the session; otherwise it must not."""
    return may_end_in(*(("link_lost", "session_lost") if attacked.gvisor else ()))


def fork_once() -> object:
    """Whether another process can be started, and how long that took."""
    import os
    import time

    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return time.monotonic() - start


def processes_of(uid: int) -> list[int]:
    """The host's processes that run as this uid."""
    found: list[int] = []
    for process in psutil.process_iter():
        try:
            if process.uids().real == uid:
                found.append(process.pid)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.timed
async def test_a_fork_bomb_stops_at_the_limit_and_can_be_swept_away(
    victim: Attacked, neighbour: Attacked
) -> None:
    """Policy rule limits.pids: a bomb gets EAGAIN, harms no neighbour and ends with its command."""

    def bomb() -> object:
        import os
        import signal

        children = []
        while True:
            try:
                pid = os.fork()
            except OSError as exc:
                answer = exc.errno
                break
            if pid == 0:
                signal.pause()
            children.append(pid)
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return {"children": len(children), "errno": answer}

    with the_sandbox_may_end(victim):
        answer = await victim.attack(bomb)
        assert answer["errno"] == 11
        assert 10 < answer["children"] < victim.session.policy.limits.pids

    async def explode() -> None:
        with may_end_in("link_lost", "session_lost"):
            await victim.shell("bomb() { bomb | bomb & }; bomb; sleep 60", timeout_s=4)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(explode)
        await anyio.sleep(1)
        for _ in range(5):
            assert await neighbour.attack(fork_once) < 2
    with anyio.fail_after(60):
        while (fate := await _fate_after_a_bomb(victim)) == "infrastructure_error":
            await anyio.sleep(0.2)
    assert fate in FATES[victim.gvisor]


async def _fate_after_a_bomb(attacked: Attacked) -> str:
    """Its fate; ``infrastructure_error`` while the bomb still takes every process."""
    result = await attacked.fate()
    return "infrastructure_error" if result == "dead" else result


async def test_a_thread_bomb_counts_against_the_same_limit(victim: Attacked) -> None:
    """Policy rule limits.pids: threads are processes to the limit."""

    def bomb() -> object:
        import threading

        threading.stack_size(65536)
        hold = threading.Event()
        started = 0
        try:
            while started < 100_000:
                threading.Thread(target=hold.wait, daemon=True).start()
                started += 1
        except RuntimeError:
            pass
        hold.set()
        return started

    with the_sandbox_may_end(victim):
        assert 10 < await victim.attack(bomb) < victim.session.policy.limits.pids
    assert await victim.fate() in FATES[victim.gvisor]


async def test_a_memory_bomb_is_killed_alone(victim: Attacked, neighbour: Attacked) -> None:
    """Policy rule limits.memory: the bomb dies; the kernel's variables and the neighbour live."""
    assert (await victim.cell("kept = 41")).status == "ok"
    result = await victim.shell(
        "python3 -c 'hoard = []\nwhile True: hoard.append(bytearray(b\"x\") * (16 << 20))'"
    )
    assert result.signal == 9 or result.exit_code == 137
    again = await victim.cell("print(kept + 1)")
    assert again.status == "ok"
    assert again.outputs[0]["text"].strip() == "42"
    assert await victim.fate() == "alive"
    assert await neighbour.is_alive()


async def test_a_cell_that_eats_all_memory_ends_as_died_of_memory(victim: Attacked) -> None:
    """Invariant 8: the kernel's death is told with its cause, and a restart gives a new one."""
    result = await victim.cell(
        "hoard = []\nwhile True: hoard.append(bytearray(b'x') * (16 << 20))", timeout_s=60
    )
    assert (result.status, result.state) == ("died", "lost")
    assert "memory" in (result.reason or "")
    await victim.restart()
    assert await victim.is_alive()


async def test_a_sleeping_hoard_in_shared_memory_is_counted(victim: Attacked) -> None:
    """Policy rule limits.memory: System V segments, memfds and tmpfs count as the session's own."""

    def hoard() -> object:
        import ctypes
        import os

        libc = ctypes.CDLL(None, use_errno=True)
        libc.shmat.restype = ctypes.c_void_p
        pieces = 0
        pid = os.fork()
        if pid == 0:  # the killer takes this process, and not the one that tells
            for _ in range(200):
                piece = libc.shmget(0, 16 << 20, 0o1600)
                address = libc.shmat(piece, None, 0) if piece >= 0 else -1
                if piece < 0 or address in (None, -1, 2**64 - 1):
                    os._exit(1)
                libc.shmctl(piece, 0, None)
                ctypes.memset(address, 1, 16 << 20)
                pieces += 1
            os._exit(0)
        return os.waitpid(pid, 0)[1]

    with the_sandbox_may_end(victim):
        assert await victim.attack(hoard) != 0, "more than three gigabytes were granted"
    assert await victim.fate() in FATES[victim.gvisor]


@pytest.mark.parametrize("where", ["/tmp", "/workspace", "/dev/shm"])
async def test_a_filesystem_in_memory_is_full_at_its_size(victim: Attacked, where: str) -> None:
    """Policy rule workspace, tmp and shm: writing ends in ENOSPC at the size of the policy."""

    def fill(folder: str) -> object:
        import os

        block = b"\xa5" * (1 << 20)
        written = number = 0
        answer = ""
        names = []
        while not answer and number < 64:
            number += 1
            names.append(f"{folder}/fill-{number}")
            descriptor = os.open(names[-1], os.O_CREAT | os.O_WRONLY, 0o600)
            for _ in range(256):  # below the limit of one file's size
                got = attempt(lambda d=descriptor: os.write(d, block))
                if isinstance(got, str):
                    answer = got
                    break
                written += got
            os.close(descriptor)
        for name in names:
            os.unlink(name)
        return {"answer": answer, "written": written}

    policy = victim.session.policy
    size = {
        "/tmp": policy.tmp.size_bytes,
        "/workspace": policy.workspace.size_bytes,
        "/dev/shm": policy.shm_bytes,
    }[where]
    answer = await victim.attack(fill, where)
    assert answer["answer"] == "ENOSPC"
    assert size // 2 < answer["written"] <= size
    assert await victim.is_alive()


async def test_all_filesystems_full_at_once_leave_memory_to_work(victim: Attacked) -> None:
    """Policy rule limits.memory: what the tmpfs may hold together leaves room for processes."""
    for folder in ("/tmp", "/workspace", "/dev/shm"):
        await victim.shell(
            f"for n in 1 2 3 4; do head -c 500M /dev/zero > {folder}/full-$n || break; done"
        )
    assert (await victim.shell("echo alive")).stdout.strip() == "alive"
    assert (await victim.cell("print(sum(range(10)))")).outputs[0]["text"].strip() == "45"


async def test_inodes_run_out_before_the_kernels_memory_does(victim: Attacked) -> None:
    """Policy rule workspace.inodes: millions of empty files are refused at the policy's number."""

    def files(folder: str, limit: int) -> object:
        import os

        os.mkdir(f"{folder}/many")
        for number in range(limit):
            name = f"{folder}/many/{number}"
            got = attempt(lambda name=name: os.close(os.open(name, os.O_CREAT | os.O_WRONLY)))
            if isinstance(got, str):
                return [number, got]
        return [limit, "no end"]

    inodes = victim.session.policy.tmp.inodes
    made, answer = await victim.attack(files, "/tmp", inodes + 1000)
    if victim.gvisor:  # its tmpfs is its own process's memory, which the container's limit bounds
        return
    assert answer == "ENOSPC"
    assert made < inodes


async def test_descriptors_run_out_at_the_limit(sandbox: Attacked) -> None:
    """Policy rule limits.open_files: EMFILE at the policy's number, for each process."""

    def hoard() -> object:
        import os

        held = []
        while True:
            got = attempt(lambda: os.open("/dev/null", os.O_RDONLY))
            if isinstance(got, str):
                return [len(held), got]
            held.append(got)

    limit = sandbox.session.policy.limits.open_files
    held, answer = await sandbox.attack(hoard)
    assert answer == "EMFILE"
    assert limit - 20 < held < limit


async def test_a_file_cannot_outgrow_its_limit_not_even_sparsely(sandbox: Attacked) -> None:
    """Policy rule limits.file_size: EFBIG, for data, for holes and for allocation."""

    def grow(limit: int) -> object:
        import os
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        path = "/workspace/sparse"
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        answers = {
            "write": attempt(lambda: os.pwrite(descriptor, b"x", limit + 1)),
            "truncate": attempt(lambda: os.ftruncate(descriptor, 1 << 40)),
            "allocate": attempt(lambda: os.posix_fallocate(descriptor, 0, limit + (1 << 20))),
        }
        os.unlink(path)
        return answers

    answers = await sandbox.attack(grow, sandbox.session.policy.limits.file_size_bytes)
    assert set(answers.values()) <= {"EFBIG", "ENOSPC", "EINVAL"}


async def test_locked_memory_is_bounded(sandbox: Attacked) -> None:
    """Policy rule limits.memory: pages cannot be pinned past the limit."""

    def lock() -> object:
        import ctypes
        import mmap

        libc = ctypes.CDLL(None, use_errno=True)
        area = mmap.mmap(-1, 16 << 20)
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        locked = libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(16 << 20))
        return [locked, ctypes.get_errno()]

    locked, number = await sandbox.attack(lock)
    assert locked == -1
    assert number in (1, 11, 12)


@pytest.mark.timed
async def test_processors_are_shared_by_quota(victim: Attacked, neighbour: Attacked) -> None:
    """Policy rule limits.cpus: many spinning processes together get no more than the quota."""

    async def used_s() -> float:
        stats = await victim.manager.runtime.stats(str(victim.session.container_id))
        return stats.cpu_s

    before_s, began = await used_s(), time.monotonic()
    async with anyio.create_task_group() as tasks:
        spin = "for n in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; wait"
        tasks.start_soon(lambda: victim.shell(spin, timeout_s=4))
        await anyio.sleep(1)
        assert await neighbour.attack(fork_once) < 3
    spent_s, lasted_s = await used_s() - before_s, time.monotonic() - began
    assert 1 < spent_s < lasted_s * victim.session.policy.limits.cpus * 1.2 + 0.5


async def test_a_commands_flood_is_cut_and_costs_the_controller_nothing(victim: Attacked) -> None:
    """Invariant 3: gigabytes of output are cut to the policy's bound; the rest is counted."""
    process = psutil.Process()
    before = process.memory_info().rss
    result = await victim.shell("yes flood", timeout_s=5)
    assert result.timed_out
    assert len(result.stdout.encode()) <= victim.session.policy.limits.output_bytes + 1024
    assert result.truncated_bytes > 10 * MIB
    assert process.memory_info().rss - before < 48 * MIB


async def test_a_cells_flood_is_cut_and_can_be_stopped(victim: Attacked) -> None:
    """Invariant 3: an endless print is bounded, and its time-out still works."""
    process = psutil.Process()
    before = process.memory_info().rss
    result = await victim.cell("while True: print('flood' * 200)", timeout_s=5)
    assert result.status == "timeout"
    text = "".join(output.get("text", "") for output in result.outputs)
    assert len(text.encode()) <= victim.session.policy.limits.output_bytes + 4096
    assert result.truncated_bytes > 0
    assert process.memory_info().rss - before < 64 * MIB
    assert await victim.is_alive()


async def test_huge_and_many_rich_outputs_are_cut(victim: Attacked) -> None:
    """Invariant 3: texts share one bound, images another, and a traceback has its part."""
    process = psutil.Process()
    before = process.memory_info().rss
    result = await victim.cell(
        """
        from IPython.display import display
        for _ in range(2000):
            display({"image/png": "A" * 100_000, "text/html": "<b>" + "B" * 100_000}, raw=True)
        raise ValueError("C" * 1_000_000)
        """
    )
    assert result.status == "error"
    limit = victim.session.policy.limits.output_bytes
    assert len(result.model_dump_json()) < (IMAGE_FACTOR + 2) * limit
    assert result.truncated_bytes > MIB
    assert process.memory_info().rss - before < 96 * MIB


@pytest.mark.timed
async def test_nothing_outlives_its_session(opener: Opener, engine: docker.DockerClient) -> None:
    """Invariant 7: daemons that left their group, ignore signals and hide, end with the session."""
    async with opener() as attacked:
        uid = int((await attacked.shell("id -u")).stdout)
        await attacked.shell(
            "trap '' HUP TERM INT; (setsid nohup env -i sh -c 'trap \"\" HUP TERM INT; "
            "while :; do sleep 1000; done' >/dev/null 2>&1 </dev/null &) "
        )
        await attacked.cell(
            "import os, signal; os.fork() or (os.setsid(), signal.pause())", timeout_s=3
        )
        survivors = await attacked.shell("ps -o pid= -u $(id -u) | wc -l")
        assert int(survivors.stdout) > 3
        container_id = attacked.session.container_id
        assert container_id
        if not attacked.gvisor:
            assert len(processes_of(uid)) > 3, "the host's own list does show them"
        start = time.monotonic()
    assert time.monotonic() - start < 5
    with pytest.raises(docker.errors.NotFound):
        engine.containers.get(container_id)
    assert processes_of(uid) == []


async def test_stopped_and_killed_machinery_ends_the_session_and_not_the_controller(
    opener: Opener, neighbour: Attacked
) -> None:
    """Invariant 8: a cell that kills everything it can gets a truthful end, at once."""
    async with opener() as attacked:
        with anyio.fail_after(60):
            with may_end_in("session_lost", "link_lost"):
                result = await attacked.cell("import os; os.kill(-1, 9)", timeout_s=20)
                assert result.status in ("died", "lost")
    assert await neighbour.is_alive()


async def test_orphans_are_reaped(sandbox: Attacked) -> None:
    """Policy rule limits.pids: zombies of abandoned children do not eat the limit."""

    def abandon() -> object:
        import os
        import time

        for _ in range(100):
            if os.fork() == 0:
                if os.fork() == 0:
                    os._exit(0)
                os._exit(0)
            os.wait()
        end = time.monotonic() + 10
        while True:
            zombies = 0
            for name in filter(str.isdigit, os.listdir("/proc")):
                stat = attempt(lambda name=name: open(f"/proc/{name}/stat").read())  # noqa: SIM115
                zombies += ") Z " in stat
            if not zombies or time.monotonic() > end:
                return zombies
            time.sleep(0.05)

    assert await sandbox.attack(abandon) == 0


async def test_the_page_cache_counts_and_gives_way(victim: Attacked) -> None:
    """Policy rule limits.memory: what reading files puts into memory is the session's, and goes
    before its processes do."""

    def read_everything() -> object:
        import os

        read = 0
        for folder, _, names in os.walk("/usr"):
            for name in names:
                try:
                    with open(os.path.join(folder, name), "rb") as file:
                        read += len(file.read())
                except OSError:
                    continue
        return read

    assert await victim.attack(read_everything) > 100 * MIB
    hoard = await victim.cell("held = bytearray(500 * 1024 * 1024); print(len(held))")
    assert hoard.status == "ok"
    stats = await victim.manager.runtime.stats(victim.session.container_id or "")
    assert stats.memory_bytes <= victim.session.policy.limits.memory_bytes
