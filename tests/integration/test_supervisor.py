"""The supervisor in a container with its limits, beside code that uses them up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from contextlib import contextmanager

import anyio
import pytest

from sandbox.errors import FileError, InfrastructureError, LinkLost, SandboxError
from sandbox.link.link import Link
from sandbox.runtimes.docker.runtime import DockerRuntime
from sandbox.supervisor.restraint import RESERVED_PROCESSES

from ..support.containers import Container, container
from ..support.served import RUNTIME
from ..support.supervisorprocess import Cells, run_command

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
IDLE_SESSION_BYTES = 75 * MIB
GVISOR_SESSION_BYTES = 250 * MIB


@pytest.fixture
async def box(engine: DockerRuntime) -> AsyncIterator[Container]:
    async with container(engine) as made:
        yield made


async def kernel(link: Link, name: str = "python3") -> Cells:
    await link.call("kernel.start", kernel_id="k", name=name)
    return Cells(link, "k")


@contextmanager
def or_the_sandbox_goes() -> Iterator[None]:
    """gVisor's own threads are counted with the session's: at the limit it may end as a whole."""
    try:
        yield
    except* LinkLost:
        if RUNTIME != "runsc":
            raise


async def write(link: Link, path: str, size: int) -> None:
    """Write zeros."""
    stream = link.open("file.write", path=path)
    for _ in range(size // 65_000 + 1):
        await stream.send(bytes(65_000))
    stream.end()
    await stream.receive_json()


async def test_every_kernel_of_the_image_runs_cells(box: Container) -> None:
    with anyio.fail_after(120):
        async with box.link() as link:
            specs = (await link.call("info"))["kernelspecs"]
            assert {"python3", "bash"} <= set(specs)
            for name, code in (
                ("python3", "print('from ' + 'python')"),
                ("bash", "echo from bash"),
            ):
                await link.call("kernel.start", kernel_id=name, name=name)
                assert (await Cells(link, name).run(code)).strip() == f"from {name[:6]}"


async def test_workers_and_installed_packages_work_in_cells(box: Container) -> None:
    code = (
        "import multiprocessing as m, os, pathlib, site\n"
        "def double(n): return 2 * n\n"
        "with m.get_context('fork').Pool(2) as pool: print(pool.map(double, [1, 2]))\n"
        "with m.get_context('spawn').Pool(1) as pool: print(pool.map(abs, [-1, -2]))\n"
        "pathlib.Path(site.getusersitepackages(), 'later.py').write_text('x = 3')\n"
        "import later; print(later.x)\n"
    )
    with anyio.fail_after(120):
        async with box.link() as link:
            assert await (await kernel(link)).run(code) == "[2, 4]\n[1, 2]\n3\n"


async def test_a_new_link_finds_everything_as_it_was(box: Container) -> None:
    with anyio.fail_after(120):
        async with box.link() as link:
            cells = await kernel(link)
            await cells.run("x = 'kept'")
            # Even when the session's code has removed whatever it could.
            await run_command(link, command="rm -rf /tmp/* /tmp/.[!.]* /workspace/.[!.]*")
            seq = cells.seq
        async with box.link() as link:
            assert await Cells(link, "k", after=seq).run("print(x)") == "kept\n"
            await link.call("kernel.restart", kernel_id="k")


async def test_a_kernel_that_runs_out_of_memory_dies_alone_and_says_why(box: Container) -> None:
    with anyio.fail_after(120):
        async with box.link() as link:
            cells = await kernel(link)
            await cells.submit("x = []\nwhile True: x.append(bytearray(10_000_000))")
            ours = RUNTIME == "runsc"  # whose kernel ends as a whole, and counts nothing
            exited = await cells.event("exited")
            assert (exited["signal"], exited["oom"], exited["killed_by_us"]) == (9, True, ours)
            await link.call("kernel.restart", kernel_id="k")
            await cells.submit("import os; os.kill(os.getpid(), 9)")
            exited = await cells.event("exited")
            assert (exited["signal"], exited["killed_by_us"]) == (9, False)
            assert exited["oom"] is (None if ours else False)


async def test_a_command_that_runs_out_of_memory_says_why(box: Container) -> None:
    hoard = "python3 -c 'x = []\nwhile True: x.append(bytearray(10_000_000))'"
    with anyio.fail_after(120):
        async with box.link() as link:
            *_, ended = await run_command(link, command=hoard)
            assert (ended["exit_code"], ended["signal"], ended["oom"]) == (None, 9, True)
            *_, ended = await run_command(link, command=f"{hoard}; exit $?")
            # Where the supervisor sees to the memory it ends the largest, and the shell is not it.
            assert (ended["exit_code"], ended["oom"]) == (137, None if RUNTIME == "runsc" else True)
            for other in ("kill -9 $$", "exit 137"):
                *_, ended = await run_command(link, command=other)
                assert ended["oom"] is (None if RUNTIME == "runsc" else False)


async def test_a_full_disk_is_told_leaves_nothing_and_keeps_no_kernel_from_starting(
    box: Container,
) -> None:
    with anyio.fail_after(200):
        async with box.link() as link:
            with pytest.raises(FileError) as caught:
                await write(link, "too-much", 513 * MIB)
            assert caught.value.reason in ("no_space", "too_large")
            names = (await link.call("file.list", path="."))["entries"]
            assert not [e["name"] for e in names if "part" in e["name"] or "too" in e["name"]]
            fill = (
                "head -c 1G /dev/zero > /tmp/fill; cd /tmp; for i in $(seq 20000); do : > $i; done"
            )
            await run_command(link, command=f"({fill}) 2>/dev/null")
            cells = await kernel(link)
            assert await cells.run("print(1)") == "1\n"
            await link.call("kernel.restart", kernel_id="k")
        async with box.link() as link:
            await link.call("info")


async def test_a_fork_bomb_ends_with_its_time_out(box: Container) -> None:
    with anyio.fail_after(200), or_the_sandbox_goes():
        async with box.link() as link:
            _, _, ending = await run_command(link, command=":(){ :|:& };:; sleep 60", timeout_s=3)
            assert ending["timed_out"] is True
            deadline = anyio.current_time() + 60
            while True:  # what it had started may need a moment to be gone
                try:
                    out, _, _ = await run_command(link, command="ls -d /proc/[0-9]* | wc -l")
                except SandboxError:
                    out = b"999"
                if int(out or b"999") < 12:
                    break
                assert anyio.current_time() < deadline
                await anyio.sleep(0.2)
            assert await (await kernel(link)).run("print(1)") == "1\n"


async def test_with_no_process_left_a_start_is_refused_and_works_again_later(
    box: Container, engine: DockerRuntime
) -> None:
    if RUNTIME == "runsc":  # gVisor's own threads count too: it may stand still, but not stay
        with anyio.fail_after(60), or_the_sandbox_goes():
            async with box.link() as link:
                hog = link.open("process.run", command=":(){ :|:& };:; sleep 1000")
                with anyio.move_on_after(10):
                    await hog.receive()
        with anyio.fail_after(30):
            await engine.remove(box.container_id)
        assert (await engine.inspect(box.container_id)).state == "missing"
        return
    with anyio.fail_after(200), or_the_sandbox_goes():
        async with box.link() as link:
            hog = link.open(
                "process.run",
                command='python3 -c "import os, time\nwhile True:\n try: pid = os.fork()\n'
                " except OSError: print('full', flush=True); break\n"
                ' if not pid: time.sleep(1000)\n"; sleep 1000',
            )
            message = await hog.receive()
            assert message is not None
            assert b"full" in message.data
            # A kernel is one process, and some are kept for starting them.
            starts = (
                link.call("kernel.start", kernel_id=f"more-{n}")
                for n in range(2 * RESERVED_PROCESSES)
            )
            with pytest.raises(InfrastructureError):
                await _each(starts)
            hog.reset()
            while True:
                try:
                    cells = await kernel(link)
                    break
                except InfrastructureError:
                    await anyio.sleep(0.1)
            assert await cells.run("print(1)") == "1\n"


async def _each(calls: Iterable[Awaitable[object]]) -> None:
    for call in calls:
        await call


async def test_an_idle_session_shares_most_of_its_memory(
    box: Container, engine: DockerRuntime
) -> None:
    with anyio.fail_after(120):
        async with box.link() as link:
            await (await kernel(link)).run("1 + 1")
            if RUNTIME == "runsc":  # there is no smaps there; the machine sees gVisor's own as well
                stats = await engine.stats(box.container_id)
                assert stats.memory_bytes < GVISOR_SESSION_BYTES
                return
            out, _, _ = await run_command(link, command="cat /proc/[0-9]*/smaps_rollup")
    shares = [int(line.split()[1]) for line in out.decode().splitlines() if line[:4] == "Pss:"]
    assert len(shares) >= 4
    assert sum(shares) * 1024 < IDLE_SESSION_BYTES
