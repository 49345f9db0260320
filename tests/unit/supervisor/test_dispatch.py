"""Whoever is in the container can reach the supervisor's socket: it must stay up and serve on."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from sandbox.container.examination import FORBIDDEN_CALLS
from sandbox.errors import InvalidRequest
from sandbox.link.link import Link
from sandbox.supervisor import bridge
from sandbox.supervisor.pipes import PipePair

from ...support.supervisorprocess import SupervisorProcess

pytestmark = pytest.mark.anyio


async def test_it_says_what_it_is(link: Link, machine: SupervisorProcess) -> None:
    with anyio.fail_after(10):
        info = await link.call("info")
    assert info["pid"] == machine.process.pid
    assert (info["uid"], info["gid"]) == (os.getuid(), os.getgid())
    assert info["kernelspecs"]["python3"]["language"] == "python"


async def test_it_stays_single_threaded_since_it_forks(machine: SupervisorProcess) -> None:
    with anyio.fail_after(30):
        async with machine.link() as link:
            await link.call("kernel.start", kernel_id="threads", name="python3")
            await link.call("probe")
            assert len(list(Path(f"/proc/{machine.process.pid}/task").iterdir())) == 1
            await link.call("kernel.stop", kernel_id="threads")


async def test_operations_that_do_not_exist_are_refused(link: Link) -> None:
    with anyio.fail_after(10):
        for op in ("nonsense", "kernel", "__init__"):
            with pytest.raises(InvalidRequest):
                await link.call(op)


async def test_a_newer_link_replaces_the_older(machine: SupervisorProcess) -> None:
    with anyio.fail_after(10):
        async with machine.link() as first, machine.link() as second:
            await first.wait_closed()
            assert (await second.call("info"))["pid"] == machine.process.pid


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", bytes(100_000)])
async def test_who_hands_over_no_link_is_let_go(
    machine: SupervisorProcess, link: Link, said: bytes
) -> None:
    with anyio.fail_after(10), machine.connect() as stranger:
        stranger.setblocking(False)
        if said:
            stranger.send(said)
        else:
            stranger.shutdown(socket.SHUT_WR)
        while True:
            try:
                assert stranger.recv(100) == b""
                break
            except ConnectionResetError:
                break
            except BlockingIOError:
                await anyio.sleep(0.01)
        await link.call("info")


async def test_a_crowd_of_silent_strangers_only_delays_a_link(machine: SupervisorProcess) -> None:
    strangers = [machine.connect() for _ in range(20)]
    try:
        with anyio.fail_after(10):
            async with machine.link() as link:
                await link.call("info")
    finally:
        for stranger in strangers:
            stranger.close()


@pytest.mark.parametrize("count", [1, 3])
async def test_a_wrong_number_of_descriptors_is_no_link(
    machine: SupervisorProcess, count: int
) -> None:
    before = len(list(Path(f"/proc/{machine.process.pid}/fd").iterdir()))
    null = os.open(os.devnull, os.O_RDWR)
    with anyio.fail_after(10):
        with machine.connect() as stranger:
            socket.send_fds(stranger, [b"link"], [null] * count)
            os.close(null)
            stranger.setblocking(False)
            await anyio.sleep(0.1)
        async with machine.link() as link:
            await link.call("info")
        while len(list(Path(f"/proc/{machine.process.pid}/fd").iterdir())) > before:
            await anyio.sleep(0.02)


async def test_garbage_on_a_link_ends_that_link_alone(machine: SupervisorProcess) -> None:
    with anyio.fail_after(10):
        with machine.connect() as connection:
            (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
            socket.send_fds(connection, [b"link"], [their_in, their_out])
            os.close(their_in)
            os.close(their_out)
            pipes = PipePair(our_in, our_out)
            await pipes.write(b"\xff" * 1000)
            while await pipes.read():
                pass
            await pipes.close()
        async with machine.link() as link:
            await link.call("info")


async def test_the_bridge_hands_over_its_descriptors_and_waits(machine: SupervisorProcess) -> None:
    process = start_bridge(machine.address)
    assert process.stdin is not None
    assert process.stdout is not None
    with process, anyio.fail_after(20):
        pipes = PipePair(os.dup(process.stdout.fileno()), os.dup(process.stdin.fileno()))
        process.stdin.close()
        link = Link(pipes, initiator=True, hello={})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.run)
            await link.greeting()
            assert (await link.call("info"))["pid"] == machine.process.pid
            assert process.poll() is None
            await link.aclose()
        while process.poll() is None:
            await anyio.sleep(0.02)
        assert process.returncode == 0


async def test_nothing_it_started_outlives_it(tmp_path: Path) -> None:
    machine = SupervisorProcess(tmp_path)
    with anyio.fail_after(30):
        async with machine.link() as link:
            pids = [(await link.call("kernel.start", kernel_id="k", name="python3"))["pid"]]
            terminal = await link.call("terminal.open", terminal_id="t", rows=9, cols=9)
            pids.append(terminal["pid"])
        machine.stop()
        while any(Path(f"/proc/{pid}/cwd").exists() for pid in pids):
            await anyio.sleep(0.02)


def start_bridge(address: str) -> subprocess.Popen[bytes]:
    """A bridge as the controller execs it."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", bridge.__file__],
        env={"SANDBOX_SUPERVISOR": address},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


async def test_the_probe_measures_what_is_true_here(link: Link) -> None:
    with anyio.fail_after(10):
        facts = await link.call("probe")
    assert facts["uid"] == os.getuid()
    assert facts["groups"] == os.getgroups()
    assert facts["hostname"] == socket.gethostname()
    assert facts["interfaces"] == sorted(name for _, name in socket.if_nameindex())
    assert facts["nofile"] == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    status = Path("/proc/self/status").read_text()
    assert f"CapEff:\t{facts['capabilities']['effective']}\n" in status
    assert facts["no_new_privs"] is False
    assert {"target", "fstype", "options"} == set(facts["mounts"][0])
    assert set(facts["forbidden"]) == set(FORBIDDEN_CALLS)
