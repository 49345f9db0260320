"""Attacks on what the host's kernel keeps once for all of its containers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace

import anyio
import docker
import pytest

from sandbox.container import images
from sandbox.container.compiler import compile_spec
from sandbox.container.identity import SandboxIdentity, new_sandbox_id, new_uid
from sandbox.policy import load, seccomp_profile
from sandbox.runtimes.docker.runtime import DockerRuntime

from .conftest import Attacked, Opener, Unguarded
from .inside import attempt, call, in_child, raw

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
SLOW_BYTES = 4 * MIB
"""In a second: less than any disk gives."""
SETSOCKOPT, PRCTL, SECCOMP = (54, 208), (157, 167), (317, 277)


@pytest.fixture
async def small(opener: Opener) -> AsyncIterator[Attacked]:
    """A session of the smallest policy, which prefers gVisor."""
    async with opener(policy="ci-eval") as attacked:
        yield attacked


@pytest.fixture
async def slow_disk(engine: docker.DockerClient) -> AsyncIterator[Unguarded]:
    """A container of ours, to be entered from outside, whose policy has a low rate."""
    runtime = DockerRuntime.connect_engine()
    found = await runtime.engine()
    assert found.disk, "the disk below the engine's folder is known here"
    policy = load().get("offline")
    limits = policy.limits.model_copy(update={"disk_read_bytes": SLOW_BYTES})
    identity = SandboxIdentity(
        sandbox_id=new_sandbox_id(),
        owner="test-slow-disk",
        uid=new_uid(),
        created_at=time.time(),
    )
    spec = compile_spec(
        policy.model_copy(update={"limits": limits}),
        identity,
        image=images.reference(policy.image),
        # gVisor does not tell what came from a disk.
        engine=replace(found, runtimes=("runc",)),
        seccomp=seccomp_profile(),
    )
    container_id = await runtime.create(spec)
    try:
        await runtime.start(container_id)
        yield Unguarded(engine.containers.get(container_id))
    finally:
        with anyio.CancelScope(shield=True):
            await runtime.remove(container_id)
            await runtime.aclose()


async def test_no_netlink_answer_can_be_left_unread(
    sandbox: Attacked, unguarded: Unguarded
) -> None:
    """Invariant 4: answers of NETLINK_ROUTE that nobody reads are charged to nobody, so the family
    is refused, with the error at which programs go on."""

    def pile_up() -> object:
        import socket
        import struct

        route = attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
        if isinstance(route, str):
            return route
        # RTM_GETLINK, as a dump
        route.send(struct.pack("=IHHIIB3x", 20, 18, 0x301, 1, 0, 0))
        return len(route.recv(1 << 20, socket.MSG_PEEK))

    assert await unguarded.attack(pile_up) > 100, "an answer waits for whoever may never read it"
    answer = await sandbox.attack(pile_up)
    if sandbox.gvisor:  # its answers are in its own memory, which counts as the session's
        assert answer == "ENOTSUP" or isinstance(answer, int)
    else:
        assert answer == "ENOTSUP"

    def every_protocol() -> object:
        tries = [(h, k, p) for h in (0, 1, -1) for k in (2, 3) for p in range(32)]
        return sorted({str(call("socket", (h << 32) | 16, k, p)) for h, k, p in tries})

    if not sandbox.gvisor:
        assert await sandbox.attack(every_protocol) == ["ENOTSUP"]


async def test_programs_that_ask_for_interfaces_go_on(sandbox: Attacked) -> None:
    """Invariant 8: without netlink names are still looked up, servers bound and messages sent."""

    def work() -> object:
        import socket
        import subprocess
        import sys

        def run(code: str) -> object:
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
            return done.returncode

        flags = socket.AI_ADDRCONFIG
        return {
            "names": socket.getaddrinfo("localhost", 80, type=1, flags=flags)[0][4][0],
            "index": socket.if_nametoindex("lo") > 0,
            # libzmq asks for the interfaces first, and ends its process at another error.
            "zmq": run("import zmq; zmq.Context().socket(zmq.REP).bind('tcp://127.0.0.1:0')"),
            "tornado": run(
                "from tornado.netutil import bind_sockets; bind_sockets(0, '127.0.0.1')"
            ),
            "multiprocessing": run(
                "from multiprocessing import connection as c; c.Listener(('localhost', 0)).close()"
            ),
        }

    answer = await sandbox.attack(work)
    assert answer.pop("names") in ("127.0.0.1", "::1")
    assert answer.pop("index") is True
    assert set(answer.values()) == {0}


async def test_no_program_can_be_attached_to_a_socket(
    sandbox: Attacked, unguarded: Unguarded
) -> None:
    """Invariant 4: filters of sockets fill bpf_jit_limit, without which no container starts."""

    def attach(numbers: tuple[int, int]) -> object:
        import ctypes
        import platform
        import socket
        import struct

        number = numbers[0 if platform.machine() == "x86_64" else 1]
        instruction = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xFFFFFFFF))
        program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(instruction))
        answers = {}
        for family, kind in ((1, 1), (2, 1), (2, 2), (10, 1), (10, 2)):
            with socket.socket(family, kind) as target:
                for high in (0, 1 << 32, -1 << 32):
                    for option in (26, 50, 51, 52):
                        answers[f"{family} {kind} {high} {option}"] = raw(
                            number, target.fileno(), high | 1, high | option, program, len(program)
                        )
        return answers

    assert (await unguarded.attack(attach, SETSOCKOPT))["1 1 0 26"] == 0, "it can be attached"
    answers = await sandbox.attack(attach, SETSOCKOPT)
    if not sandbox.gvisor:  # gVisor runs what it is given by itself, in its own memory
        assert set(answers.values()) == {"EPERM"}


async def test_the_options_that_programs_set_can_be_set(sandbox: Attacked) -> None:
    """Invariant 8: a list of options that may be set holds those that programs need."""

    def options() -> object:
        import socket

        s = socket
        wanted = [
            (s.AF_INET, s.SOL_SOCKET, s.SO_REUSEADDR), (s.AF_INET, s.SOL_SOCKET, s.SO_REUSEPORT),
            (s.AF_INET, s.SOL_SOCKET, s.SO_KEEPALIVE), (s.AF_INET, s.SOL_SOCKET, s.SO_BROADCAST),
            (s.AF_INET, s.SOL_SOCKET, s.SO_SNDBUF), (s.AF_INET, s.SOL_SOCKET, s.SO_RCVBUF),
            (s.AF_INET, s.SOL_SOCKET, s.SO_OOBINLINE), (s.AF_INET, s.IPPROTO_TCP, s.TCP_NODELAY),
            (s.AF_INET, s.IPPROTO_TCP, s.TCP_KEEPIDLE), (s.AF_INET, s.IPPROTO_IP, s.IP_TOS),
            (s.AF_INET6, s.IPPROTO_IPV6, s.IPV6_V6ONLY), (s.AF_UNIX, s.SOL_SOCKET, s.SO_PASSCRED),
        ]  # fmt: skip
        answers = {}
        for family, level, option in wanted:
            with s.socket(family, s.SOCK_STREAM) as one:
                answers[f"{level} {option}"] = attempt(
                    lambda o=one, a=level, b=option: o.setsockopt(a, b, 1)
                )
        return answers

    assert set((await sandbox.attack(options)).values()) == {None}


async def test_no_filter_of_calls_can_be_installed(sandbox: Attacked, unguarded: Unguarded) -> None:
    """Invariant 4: filters of system calls are in the same pool; a program is told that the kernel
    has none, and goes on without."""

    def install(prctl: tuple[int, int], seccomp: tuple[int, int]) -> object:
        import ctypes
        import platform
        import struct

        column = 0 if platform.machine() == "x86_64" else 1
        instruction = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))
        program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(instruction))
        raw(prctl[column], 38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, without which root alone may
        return {
            "prctl": in_child(lambda: raw(prctl[column], 22, 2, program, 0, 0)),
            "high bits": in_child(lambda: raw(prctl[column], 7 << 32 | 22, 2, program, 0, 0)),
            "seccomp": in_child(lambda: raw(seccomp[column], 1, 0, program)),
            "name": in_child(lambda: raw(prctl[column], 15, b"named\0", 0, 0, 0)),
        }

    control = await unguarded.attack(install, PRCTL, SECCOMP)
    assert (control["prctl"], control["seccomp"]) == (0, 0), "filters can be installed"
    answers = await sandbox.attack(install, PRCTL, SECCOMP)
    assert answers.pop("name") == 0, "the other options are there"
    if not sandbox.gvisor:  # its filters are its own kernel's
        assert answers == {"prctl": "EINVAL", "high bits": "EINVAL", "seccomp": "ENOSYS"}


async def test_a_socket_holds_little_however_much_it_asks_for(
    sandbox: Attacked, unguarded: Unguarded
) -> None:
    """Invariant 4: what a socket holds unread is not charged under control groups of version 1, so
    its buffers do not grow past what a container's network gives."""

    def unread() -> object:
        import socket

        def fill(sender: socket.socket, receiver: socket.socket, piece: int) -> int:
            for each in (sender, receiver):
                for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                    each.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
            sender.setblocking(False)
            sent = 0
            try:
                while sent < 64 << 20:
                    sent += sender.send(b"x" * piece)
            except BlockingIOError:
                pass
            receiver.setblocking(False)
            held = 0
            try:
                while held < 64 << 20:
                    held += len(receiver.recv(1 << 20))
            except BlockingIOError:
                pass
            return held

        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname())
            accepted, _ = server.accept()
        asking, answering = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
        answering.bind(("127.0.0.1", 0))
        asking.connect(answering.getsockname())
        return {"tcp": fill(client, accepted, 65536), "udp": fill(asking, answering, 8192)}

    control = await unguarded.attack(unread)
    held = await sandbox.attack(unread)
    if not sandbox.gvisor:  # its buffers are its own memory, which counts as the session's
        assert control["tcp"] > 4 * held["tcp"]
        assert control["udp"] > 4 * held["udp"]
        assert max(held.values()) < MIB // 4


async def test_background_processes_and_short_ones_do_not_add_up(small: Attacked) -> None:
    """Policy rule limits.pids: forty that sleep and four hundred that have ended cost a session
    nothing but themselves, whatever the runtime needs for them."""
    assert (await small.cell("kept = 41")).status == "ok"
    await small.shell("for n in $(seq 40); do sleep 300 >/dev/null 2>&1 & done")
    assert int((await small.shell("ps -e -o args= | grep -c '^sleep'")).stdout) == 40
    many = "import subprocess\nfor _ in range(400): subprocess.run(['/bin/true'], check=True)"
    assert (await small.shell(f'python3 -c "{many}"', timeout_s=110)).exit_code == 0
    result = await small.cell("print(kept + 1)")
    assert result.outputs[0]["text"].strip() == "42"


async def test_a_flood_of_processes_is_told_no_and_the_session_goes_on(small: Attacked) -> None:
    """Policy rule limits.pids: at the policy's number there is EAGAIN, under each runtime, and
    what has been there before is there after."""

    def flood() -> object:
        import os
        import signal

        children = []
        answer: object = "no end"
        for _ in range(1000):
            pid = attempt(os.fork)
            if isinstance(pid, str):
                answer = pid
                break
            if pid == 0:
                signal.pause()
            children.append(pid)
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return {"answer": answer, "children": len(children)}

    assert (await small.cell("kept = 41")).status == "ok"
    limit = small.session.policy.limits.pids
    for _ in range(2):
        told = await small.attack(flood)
        assert told["answer"] == "EAGAIN"
        assert limit // 2 < told["children"] < limit
    result = await small.cell("print(kept + 1)")
    assert result.outputs[0]["text"].strip() == "42"


async def test_files_of_the_image_are_read_at_the_policys_rate(
    unguarded: Unguarded, slow_disk: Unguarded
) -> None:
    """Policy rule limits.disk_read: dropping files from memory and reading them again does not take
    the disk from everybody."""

    def reread(seconds: float) -> object:
        import os
        import time

        sizes = {}
        for folder, _, names in os.walk("/usr"):
            for path in (f"{folder}/{name}" for name in names):
                if not os.path.islink(path):
                    sizes[path] = os.path.getsize(path)
        largest = sorted(sizes, key=lambda path: -sizes[path])[:6]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for path in largest:
                descriptor = os.open(path, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                while os.read(descriptor, 1 << 20) and time.monotonic() < end:
                    pass
                os.close(descriptor)
        with open("/proc/self/io") as lines:
            return int(dict(line.split(": ") for line in lines)["read_bytes"])

    seconds = 4
    free, bound = await unguarded.attack(reread, seconds), await slow_disk.attack(reread, seconds)
    assert bound < SLOW_BYTES * seconds * 1.5
    assert free > 3 * bound, "the disk gives more to whom nothing bounds"
