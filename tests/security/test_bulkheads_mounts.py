"""Attacks through folders of the host, and on what the host's kernel keeps in one place for all."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import docker
import pytest

from sandbox.cli.wiring import controller
from sandbox.config import Settings
from sandbox.errors import ConfigError
from sandbox.policy.cautions import MAX_SESSION_FILES
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.mountwatch import search_once

from .conftest import RUNTIME, Attacked, Unguarded
from .inside import attempt, readable, signal

LENT = """\
version: 1
description: A folder of the host.
limits: {memory: 512MiB, sessions: 16}
workspace: {size: 16MiB, inodes: 2048}
mounts: [{root: lent, path: folder, target: /data/folder%s}]
"""
ANSWER = b"the host's"

pytestmark = pytest.mark.anyio


class Lender:
    """A controller that lends a folder of the host.

    Args:
        manager: Its sessions.
        folder: The folder that its policies mount.
    """

    def __init__(self, manager: SessionManager, folder: Path) -> None:
        self.manager = manager
        self.folder = folder

    async def open(self, policy: str = "lent", principal: str = "ada") -> Attacked:
        caller = Caller(principal=principal)
        session = await self.manager.open(caller, policy=policy, reuse=False)
        return Attacked(session, self.manager, caller)


@asynccontextmanager
async def lending(tmp_path: Path) -> AsyncIterator[Lender]:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "lent.yaml").write_text(LENT % "")
    (policies / "trusting.yaml").write_text(LENT % ", sockets: allow")
    folder = tmp_path / "lent" / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "file").write_text(ANSWER.decode())
    chosen: dict[str, Any] = {
        "state_dir": tmp_path / "state",
        "runtime": RUNTIME,
        "policies": policies,
        "roots": {"lent": str(tmp_path / "lent")},
    }
    async with controller(Settings(**chosen), "run") as manager:
        yield Lender(manager, folder)


@pytest.fixture
async def lender(tmp_path: Path) -> AsyncIterator[Lender]:
    async with lending(tmp_path) as lender:
        yield lender


@contextmanager
def service(path: Path) -> Iterator[list[bytes]]:
    """A program of the host at a socket that everybody may use; what it was told."""
    told: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        parent = os.open(path.parent, os.O_PATH)
        listener.bind(
            f"/proc/self/fd/{parent}/{path.name}"
        )  # whose length is bounded, unlike path's
        os.close(parent)
        path.chmod(0o777)
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    told.append(connection.recv(100))
                    connection.sendall(ANSWER)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield told
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            path.unlink()


def speak(path: str) -> str:
    import socket

    with socket.socket(socket.AF_UNIX) as way:
        way.connect(path)
        way.sendall(b"from inside")
        return way.recv(100).decode()


async def test_a_socket_in_a_folder_opens_no_session(lender: Lender) -> None:
    """Policy rule mounts: read-only is no barrier to connect, so such a folder is not mounted."""
    with service(lender.folder / "inner" / "door") as told:
        if RUNTIME != "runsc":  # whose folders have no sockets
            trusting = await lender.open("trusting")
            said = await trusting.attack(speak, "/data/folder/inner/door")
            assert (said, told) == (ANSWER.decode(), [b"from inside"])
        with pytest.raises(ConfigError, match="the socket 'inner/door'"):
            await lender.open()
    assert await (await lender.open()).is_alive()


def write_into(path: str) -> int:
    import os

    return os.write(os.open(path, os.O_WRONLY | os.O_NONBLOCK), b"from inside")


async def test_a_fifo_in_a_folder_opens_no_session(lender: Lender) -> None:
    """Policy rule mounts: a FIFO on a read-only mount can be written to, so none is mounted."""
    fifo = lender.folder / "queue"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    if RUNTIME != "runsc":
        trusting = await lender.open("trusting")
        assert await trusting.attack(write_into, "/data/folder/queue") == len(b"from inside")
        assert os.read(reader, 100) == b"from inside"
    os.close(reader)
    with pytest.raises(ConfigError, match="the FIFO 'queue'"):
        await lender.open()


async def test_a_socket_that_comes_into_a_folder_ends_its_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policy rule mounts: what the host puts there later is found, and costs no other session."""
    monkeypatch.setattr("sandbox.sessions.mountwatch.EVERY_S", 0.5)
    async with lending(tmp_path) as lender:
        attacked = await lender.open()
        trusting = await lender.open("trusting", principal="grace")
        assert await attacked.is_alive()
        with service(lender.folder / "late"):
            with anyio.fail_after(30):
                await attacked.session.wait_over()
            assert await attacked.fate() == "session_lost"
            info = await lender.manager.close(attacked.caller, attacked.session.session_id)
            assert (info.state, await trusting.is_alive()) == ("closed", True)


async def test_a_folder_too_large_to_be_searched_opens_no_session(
    lender: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policy rule mounts: what nobody has looked through is not taken for harmless."""
    for n in range(50):
        (lender.folder / str(n)).touch()
    attacked = await lender.open()
    monkeypatch.setattr("sandbox.container.sockets.MAX_ENTRIES", 40)
    with pytest.raises(ConfigError, match="more than 40 files"):
        await lender.open()
    assert len(await search_once([attacked.session])) == 1  # it is said,
    assert await attacked.is_alive()  # and a session that was searched when it opened goes on
    assert await (await lender.open("trusting")).is_alive()


def huge_pages() -> dict[str, Any]:
    """Take a page of 2 MiB in every way there is, and say how many are free then."""
    import ctypes
    import mmap
    import os

    libc = ctypes.CDLL(None, use_errno=True)
    size = 2 << 20
    held: list[Any] = []

    def counted(flags: int, descriptor: int = -1) -> int:
        page = mmap.mmap(descriptor, size, flags=flags)
        page[0] = 1
        held.append(page)
        return 0

    def checked(answer: int) -> int:
        if answer < 0:
            raise OSError(ctypes.get_errno(), "")
        return answer

    def filed(descriptor: int) -> int:
        os.ftruncate(descriptor, size)
        return counted(mmap.MAP_SHARED, descriptor)

    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    tries = {
        "mmap": lambda: counted(private | 0x40000),
        "mmap with a size": lambda: counted(private | 0x40000 | 21 << 26),
        "memfd": lambda: filed(checked(libc.memfd_create(b"m", 4))),
        "memfd with a size": lambda: filed(checked(libc.memfd_create(b"m", 4 | 21 << 26))),
        "shm": lambda: checked(libc.shmget(0, size, 0o5600)),
    }
    usual = {
        "mmap": lambda: counted(private),
        "memfd": lambda: filed(checked(libc.memfd_create(b"m", 1))),
        "shm": lambda: checked(libc.shmget(0, 4096, 0o1600)),
    }
    return {
        "huge": {name: attempt(each) for name, each in tries.items()},
        "usual": {name: attempt(each) for name, each in usual.items()},
    }


@pytest.fixture
def reserved_pages() -> Iterator[None]:
    """The host has reserved some huge pages."""
    setting = Path("/proc/sys/vm/nr_hugepages")
    before = setting.read_text()
    setting.write_text("8")
    yield
    setting.write_text(before)


async def test_the_hosts_huge_pages_are_out_of_reach(
    lender: Lender, unguarded: Unguarded, reserved_pages: None
) -> None:
    """Invariant 4: no memory limit counts these pages, so there is no way to ask for one."""
    attacked = await lender.open()
    if not attacked.gvisor:  # which has memory of its own, all of it counted
        real = (await unguarded.attack(huge_pages))["huge"]
        assert [real["mmap"], real["memfd"], real["memfd with a size"]] == [0, 0, 0]
        answers = await attacked.attack(huge_pages)
        assert set(answers["huge"].values()) == {"EPERM"}
        assert "EPERM" not in answers["usual"].values()


OF_THE_HOST = (
    *("/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/pty/nr", "/proc/sys/fs/file-nr"),
    *("/proc/sys/fs/inode-nr", "/proc/sys/fs/dentry-state", "/proc/sys/fs/aio-nr"),
)


def read_all(paths: list[str]) -> dict[str, str]:
    return {path: readable(path) for path in paths}


async def test_the_hosts_boot_and_pools_cannot_be_read(
    lender: Lender, unguarded: Unguarded
) -> None:
    """Invariant 2: what identifies the host, or counts what others hold, is masked."""
    attacked = await lender.open()
    real = await unguarded.attack(read_all, list(OF_THE_HOST))
    assert all(any(letter.isdigit() for letter in text) for text in real.values())
    told = await attacked.attack(read_all, list(OF_THE_HOST))
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text()
    assert boot_id == real["/proc/sys/kernel/random/boot_id"] != told[OF_THE_HOST[0]]
    if not attacked.gvisor:  # what that has of these files counts what is inside alone
        assert set(told.values()) <= {"", "EACCES", "EPERM"}


def host_facts() -> dict[str, str]:
    """What programs inside need, and what is of the host in it."""
    with open("/proc/stat") as lines:
        booted = next((line.split()[1] for line in lines if line.startswith("btime")), "")
    with open("/proc/self/mountinfo") as lines:
        mounts = lines.read()
    return {"booted": booted, "mounts": mounts}


async def test_gap_the_mount_table_and_proc_stat_tell_of_the_host(lender: Lender) -> None:
    """Invariant 2: a gap, stated in docs/security.md. psutil and ps need the one, and the other is
    each process's own file, which no mask can be put over."""
    attacked = await lender.open()
    if attacked.gvisor:
        return
    told = await attacked.attack(host_facts)
    ours = [line for line in Path("/proc/stat").read_text().splitlines() if "btime" in line]
    assert [f"btime {told['booted']}"] == ours
    assert str(lender.folder) in told["mounts"]


def open_many(wanted: int) -> int:
    """Open files in as many processes as it takes, until nothing more is given; how many."""
    import os
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    reader, writer = os.pipe()
    opened = 0
    children: list[int] = []
    while opened < wanted:
        try:
            pid = os.fork()
        except OSError:
            break
        if pid == 0:
            count = 0
            try:
                while count < wanted - opened:
                    os.open("/dev/null", os.O_RDONLY)
                    count += 1
            except OSError:
                pass
            os.write(writer, b"%12d" % count)
            signal.pause()
        children.append(pid)
        opened += int(os.read(reader, 12))
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return opened


async def test_a_session_cannot_use_up_the_hosts_open_files(
    lender: Lender, unguarded: Unguarded
) -> None:
    """Policy rule limits.open_files: with limits.pids it bounds the session as a whole."""
    wanted = MAX_SESSION_FILES + 20_000
    assert await unguarded.attack(open_many, wanted) >= wanted
    attacked = await lender.open()
    limits = attacked.session.policy.limits
    assert limits.pids * limits.open_files <= MAX_SESSION_FILES
    if not attacked.gvisor:  # whose files are its own, but for those of the host that it opens
        opened = await attacked.attack(open_many, wanted)
        assert limits.open_files < opened < MAX_SESSION_FILES
        assert await attacked.is_alive()


def crash(name: str) -> int:
    """Let a child crash under a name; its signal."""
    import ctypes

    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None)
        libc.prctl(15, name.encode(), 0, 0, 0)
        ctypes.string_at(8)
        os._exit(0)
    return os.waitpid(pid, 0)[1] & 0x7F


def kernel_log() -> str:
    return subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout


async def test_gap_a_crash_is_logged_by_the_host_under_a_chosen_name(lender: Lender) -> None:
    """Invariant 2: a gap, stated in docs/security.md, as long as debug.exception-trace is on."""
    name = f"x{os.urandom(6).hex()}"
    attacked = await lender.open()
    if attacked.gvisor:  # whose own kernel handles it
        assert await attacked.attack(crash, name)
        assert name not in await anyio.to_thread.run_sync(kernel_log)
        return
    setting = Path("/proc/sys/debug/exception-trace")
    before = setting.read_text()
    try:
        for value, is_logged in (("0", False), ("1", True)):
            setting.write_text(value)
            assert await attacked.attack(crash, name) == 11
            assert (name in await anyio.to_thread.run_sync(kernel_log)) is is_logged
    finally:
        setting.write_text(before)


def hold_and_watch(path: str) -> int:
    """Lock a file that is mounted read-only, and watch it, in a process that stays."""
    import ctypes
    import fcntl

    pid = os.fork()
    if pid:
        return pid
    for descriptor in range(3):
        os.close(descriptor)
    file = os.open(path, os.O_RDONLY)
    fcntl.flock(file, fcntl.LOCK_EX)
    libc = ctypes.CDLL(None)
    watch = libc.inotify_init()
    libc.inotify_add_watch(watch, path.encode(), 0x20)
    seen = os.open("/workspace/seen", os.O_WRONLY | os.O_CREAT)
    with open("/workspace/ready", "w"):
        pass
    os.read(watch, 4096)
    os.write(seen, b"opened")
    signal.pause()
    return 0


async def test_gap_sessions_lock_and_watch_the_hosts_files(lender: Lender) -> None:
    """Policy rule mounts: a gap, stated in docs/security.md. A lock needs no right to write, and
    the files of a folder are one and the same for the host and all sessions."""
    attacked = await lender.open()
    if attacked.gvisor:  # whose kernel has locks and watches of its own
        return
    neighbour = await lender.open(principal="grace")
    await attacked.attack(hold_and_watch, "/data/folder/file")
    ready = await attacked.shell("until [ -e ready ]; do sleep 0.05; done", timeout_s=20)
    assert ready.exit_code == 0
    with (lender.folder / "file").open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    told = await neighbour.shell("flock -n /data/folder/file true || echo blocked")
    assert told.stdout == "blocked\n"
    seen = await attacked.shell("until [ -s seen ]; do sleep 0.05; done; cat seen", timeout_s=20)
    assert seen.stdout == "opened"


async def test_a_session_fills_nothing_of_the_engines_disk(
    lender: Lender, engine: docker.DockerClient
) -> None:
    """Invariant 2: what code writes is bounded memory of its own; no log, layer or volume grows."""
    attacked = await lender.open()
    container_id = attacked.session.container_id or ""
    await attacked.shell(
        "head -c 99M /dev/zero; for f in /workspace /tmp /dev/shm / /var/tmp /data /dev/mqueue;"
        " do head -c 99M /dev/zero > $f/fill; done 2>/dev/null; :"
    )

    def layer_and_log() -> tuple[int, str, bool]:
        (told,) = engine.api.containers(filters={"id": container_id}, size=True)
        found = engine.api.inspect_container(container_id)
        log = found.get("LogPath") or ""
        return int(told.get("SizeRw") or 0), log, bool(log) and Path(log).exists()

    size, log, is_there = await anyio.to_thread.run_sync(layer_and_log)
    assert (size, log, is_there) == (0, "", False)


NOT_OURS = {
    "5.2": "SELinux is of hosts that have it; the engine applies its own label there",
    "5.6": "no container runs sshd: its processes are the supervisor's, and it has no network",
    "5.8": "no port is published, so none can be needless",
    "5.13": "likewise: none is bound to an interface of the host",
    "5.22": "the bridge is executed without --privileged, by the adapter's one call",
    "5.23": "likewise without --user root: as the session's uid",
    "5.26": "no HEALTHCHECK: the link to the supervisor tells at once when a session does not work",
}
"""Rules of section 5 of the CIS Docker Benchmark of which an inspection says nothing, and why."""


async def test_an_auditor_of_containers_finds_nothing(
    lender: Lender, engine: docker.DockerClient
) -> None:
    """Invariant 4: section 5 of the CIS Docker Benchmark, read from the engine's inspection."""
    attacked = await lender.open()
    found = await anyio.to_thread.run_sync(
        engine.api.inspect_container, attacked.session.container_id
    )
    info = await anyio.to_thread.run_sync(engine.api.info)
    host, config = found["HostConfig"], found["Config"]
    has_apparmor = any("apparmor" in option for option in info["SecurityOptions"])
    options: list[str] = host["SecurityOpt"]
    sources = [mount["Source"] for mount in found["Mounts"]]
    volumes = f"{info['DockerRootDir']}/volumes/"
    rules = {
        "5.1": not has_apparmor or found["AppArmorProfile"] not in ("", "unconfined"),
        "5.3": not host["CapAdd"] and host["CapDrop"] == ["ALL"],
        "5.4": host["Privileged"] is False,
        "5.5": not host["Binds"] and all(source.startswith(volumes) for source in sources),
        "5.7": not host["PortBindings"] and not (config.get("ExposedPorts") or {}),
        "5.9": host["NetworkMode"] == "none",
        "5.10": host["Memory"] > 0 and host["MemorySwap"] == host["Memory"],
        "5.11": host["NanoCpus"] > 0,
        "5.12": host["ReadonlyRootfs"] is True,
        "5.14": host["RestartPolicy"]["Name"] in ("", "no"),  # a session ends with its container
        "5.15": host["PidMode"] == "",
        "5.16": host["IpcMode"] == "private",
        "5.17": not host["Devices"] and not host["DeviceRequests"],
        "5.18": {"core", "fsize", "memlock", "msgqueue", "nofile"}
        <= {limit["Name"] for limit in host["Ulimits"]},
        "5.19": all("shared" not in (mount.get("Propagation") or "") for mount in found["Mounts"]),
        "5.20": host["UTSMode"] == "",
        "5.21": any(option.startswith("seccomp={") for option in options),
        "5.24": host["CgroupParent"] == "",
        "5.25": "no-new-privileges:true" in options,
        "5.27": not config["Image"].endswith(":latest"),  # but its content's digest
        "5.28": 0 < host["PidsLimit"] <= 32_768,
        "5.29": found["NetworkSettings"]["Networks"].keys() == {"none"},
        "5.30": host["UsernsMode"] == "",
        "5.31": all("docker.sock" not in source for source in sources),
    }
    assert [rule for rule, holds in rules.items() if not holds] == []
    assert len(rules) + len(NOT_OURS) == len(rules.keys() | NOT_OURS.keys()) == 31
