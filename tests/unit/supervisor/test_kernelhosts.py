"""Real kernels, forked from a real supervisor on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time

import anyio
import pytest

from sandbox.errors import Conflict, InfrastructureError, InvalidRequest, NotFound
from sandbox.link import wire
from sandbox.link.link import Link
from sandbox.link.stream import Stream

from ...support.supervisorprocess import Cells, SupervisorProcess

pytestmark = pytest.mark.anyio


async def test_a_cell_runs_and_its_first_output_is_not_missed(link: Link) -> None:
    with anyio.fail_after(30):
        for number in range(5):
            answer = await link.call("kernel.start", kernel_id=f"first-{number}", name="python3")
            assert answer == {
                **{"kernel_id": f"first-{number}", "name": "python3", "epoch": 1},
                "pid": answer["pid"],
            }
            cells = Cells(link, f"first-{number}")
            assert await cells.run(f"print({number})") == f"{number}\n"
            assert (await cells.event("started"))["pid"] == answer["pid"]
            await link.call("kernel.stop", kernel_id=f"first-{number}")


async def test_a_kernel_sees_nothing_of_the_supervisor(
    cells: Cells, machine: SupervisorProcess
) -> None:
    code = (
        "import json, os, sys\n"
        "fds = {fd: os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')"
        " if os.path.exists(f'/proc/self/fd/{fd}')}\n"
        "import sandbox\n"
        "print(json.dumps({'path': sys.path, 'cwd': os.getcwd(), 'name': __name__, 'fds': fds,"
        " 'sandbox': sandbox.__file__, 'argv': sys.argv, 'context': repr(sys.exc_info()[0]),"
        " 'sid': os.getsid(0) == os.getpid() == os.getpgid(0), 'env': list(os.environ),"
        " 'modules': [m for m in sys.modules if m.split('.')[0] == 'sandbox']}))"
    )
    own = machine.workspace / "sandbox.py"
    own.write_text("")
    with anyio.fail_after(30):
        seen = json.loads(await cells.run(code))
    assert seen["path"][0] == ""
    assert str(machine.workspace.parents[0]) not in seen["path"]
    assert seen["cwd"] == str(machine.workspace)
    assert (seen["name"], seen["modules"]) == ("__main__", ["sandbox"])
    assert seen["sandbox"] == str(own)
    assert seen["context"] == "None"
    assert seen["sid"]
    assert not [name for name in seen["env"] if name.startswith("SANDBOX_") and name[8] != "P"]
    listeners = os.readlink(f"/proc/{machine.process.pid}/fd/3")
    assert listeners.startswith("socket:")
    assert listeners not in seen["fds"].values()


async def test_an_error_in_a_cell_has_no_context_of_ours(cells: Cells) -> None:
    with anyio.fail_after(30):
        found, reply = await cells.outputs(await cells.submit("1/0"))
    assert reply["ename"] == "ZeroDivisionError"
    [(_, error)] = [output for output in found if output[0] == "error"]
    text = "".join(error["traceback"])
    assert "During handling" not in text
    assert "BecomeKernel" not in text


async def test_objects_of_a_cell_can_be_pickled_and_sent_to_workers(cells: Cells) -> None:
    code = (
        "import pickle, multiprocessing as m\n"
        "class A:\n  x = 1\n"
        "print(pickle.loads(pickle.dumps(A())).x)\n"
        "def double(n): return 2 * n\n"
        "with m.get_context('fork').Pool(2) as pool: print(pool.map(double, [1, 2]))\n"
        "with m.get_context('spawn').Pool(1) as pool: print(pool.map(abs, [-1, -2]))\n"
    )
    with anyio.fail_after(60):
        assert await cells.run(code) == "1\n[2, 4]\n[1, 2]\n"


async def test_kernels_do_not_share_their_randomness(link: Link) -> None:
    seen: set[str] = set()
    with anyio.fail_after(30):
        for number in range(3):
            await link.call("kernel.start", kernel_id=f"random-{number}", name="python3")
            seen.add(
                await Cells(link, f"random-{number}").run(
                    "import random; random.random()\nprint(random.random())"
                )
            )
            await link.call("kernel.stop", kernel_id=f"random-{number}")
    assert len(seen) == 3


async def test_a_package_put_into_the_user_site_later_can_be_imported(
    cells: Cells, machine: SupervisorProcess
) -> None:
    with anyio.fail_after(30):
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        site = machine.workspace / ".local/lib" / version / "site-packages"
        found, _ = await cells.outputs(await cells.submit("import just_installed"))
        assert found[-1][1]["ename"] == "ModuleNotFoundError"
        (site / "just_installed.py").write_text("x = 'here'")
        assert await cells.run("import just_installed; print(just_installed.x)") == "here\n"


async def test_bytes_written_past_python_are_published_as_characters(cells: Cells) -> None:
    with anyio.fail_after(60):
        text = await cells.run(
            "import os; _ = os.system('for i in $(seq 20000); do echo é漢🙂; done')"
        )
        # What the descriptor's watcher has not read at the end of the cell comes after it.
        while text.count("\n") < 20000:
            head, parts = await cells.next()
            if head["channel"] == "iopub" and b'"stream"' in parts[1]:
                text += json.loads(parts[4])["text"]
    assert text == "é漢🙂\n" * 20000


async def test_an_interrupted_cell_keeps_its_kernel(cells: Cells, link: Link) -> None:
    with anyio.fail_after(30):
        await cells.run("x = 41")
        msg_id = await cells.submit("print('on', flush=True)\nimport time; time.sleep(60)")
        while b'"on' not in b"".join((await cells.next())[1]):
            pass
        await link.call("kernel.interrupt", kernel_id=cells.kernel_id)
        _, reply = await cells.outputs(msg_id)
        assert reply["ename"] == "KeyboardInterrupt"
        assert await cells.run("print(x + 1)") == "42\n"


async def test_a_restart_kills_at_once_and_forgets(cells: Cells, link: Link) -> None:
    with anyio.fail_after(30):
        await cells.run("import subprocess, signal; x = 1")
        await cells.run("child = subprocess.Popen(['sleep', '1000'], start_new_session=True)")
        child = int(await cells.run("print(child.pid)"))
        await cells.submit("signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass")
        answer = await link.call("kernel.restart", kernel_id=cells.kernel_id)
        assert answer["epoch"] == 2
        exited = await cells.event("exited")
        assert (exited["epoch"], exited["signal"], exited["killed_by_us"]) == (1, 9, True)
        assert exited["oom"] is False
        while (await cells.event("started"))["epoch"] != 2:
            pass
        found, _ = await cells.outputs(await cells.submit("x"))
        assert found[-1][1]["ename"] == "NameError"
        while os.path.exists(f"/proc/{child}/cwd"):  # somebody else reaps it, soon
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("code", "exit_code", "number"),
    [
        ("import os; os._exit(7)", 7, None),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", None, signal.SIGSEGV),
        ("import ctypes; ctypes.string_at(0)", None, signal.SIGSEGV),
    ],
)
async def test_a_dead_kernel_is_reported_with_its_cause(
    cells: Cells, link: Link, code: str, exit_code: int | None, number: int | None
) -> None:
    with anyio.fail_after(30):
        await cells.submit(f"print('last words', flush=True)\n{code}")
        exited = await cells.event("exited")
        assert (exited["exit_code"], exited["signal"]) == (exit_code, number)
        assert (exited["killed_by_us"], exited["oom"]) == (False, False)
        [line] = [
            kernel
            for kernel in (await link.call("kernel.list"))["kernels"]
            if kernel["kernel_id"] == cells.kernel_id
        ]
        assert line["alive"] is False
        await link.call("kernel.restart", kernel_id=cells.kernel_id)
        assert await cells.run("print('back')") == "back\n"


async def test_the_log_goes_on_over_links_and_is_read_from_where_it_was_left(
    machine: SupervisorProcess,
) -> None:
    with anyio.fail_after(30):
        async with machine.link() as first:
            await first.call("kernel.start", kernel_id="lives-on", name="python3")
            cells = Cells(first, "lives-on")
            await cells.run("x = 'kept'")
            before = cells.seq
            # It goes on running when nobody is there, and says so later.
            msg_id = await cells.submit("import time; time.sleep(0.2); print(x)")
            await cells.next()  # it has begun
        async with machine.link() as second:
            cells = Cells(second, "lives-on", after=before)
            found, reply = await cells.outputs(msg_id)
            assert reply["status"] == "ok"
            assert found[-1][1]["text"] == "kept\n"
            await second.call("kernel.stop", kernel_id="lives-on")


async def test_a_flood_arrives_whole_when_it_is_read_slowly(cells: Cells) -> None:
    with anyio.fail_after(60):
        msg_id = await cells.submit("for i in range(3000): print(f'{i:05}' + 'x' * 20000)")
        await asyncio.sleep(1)  # meanwhile the log and the kernel's own queue are full
        found, _ = await cells.outputs(msg_id)
    text = "".join(content["text"] for kind, content in found if kind == "stream")
    assert text == "".join(f"{i:05}{'x' * 20000}\n" for i in range(3000))
    assert not [event for event in cells.events if event["event"] == "dropped"]


async def test_one_print_of_any_size_is_paced(cells: Cells, machine: SupervisorProcess) -> None:
    with anyio.fail_after(60):
        found, _ = await cells.outputs(await cells.submit("print('y' * 100_000_000)"))
    assert sum(len(content["text"]) for kind, content in found if kind == "stream") == 100_000_001
    assert machine.peak_memory_bytes() < 200 * 1024 * 1024


async def test_a_flood_that_nobody_reads_is_bounded_and_its_gap_is_told(
    machine: SupervisorProcess,
) -> None:
    with anyio.fail_after(60):
        async with machine.link() as first:
            await first.call("kernel.start", kernel_id="flood", name="python3")
            cells = Cells(first, "flood")
            await cells.run("pass")
            before = cells.seq
            msg_id = await cells.submit(
                "import time; time.sleep(0.3)\nfor i in range(1000): print('z' * 99_999)"
            )
            await cells.next()  # it has begun
        async with machine.link() as second:
            await quiet(second, "flood")
            cells = Cells(second, "flood", after=before)
            found, reply = await cells.outputs(msg_id)
            assert reply["status"] == "ok"
            kept = sum(len(content["text"]) for kind, content in found if kind == "stream")
            [gap] = [event for event in cells.events if event["event"] == "dropped"]
            assert 20_000_000 < kept < 40_000_000
            assert gap["bytes"] + kept >= 100_000_000
            assert gap["to_seq"] - gap["from_seq"] + 1 == gap["messages"]
            await second.call("kernel.stop", kernel_id="flood")


async def quiet(link: Link, name: str) -> None:
    """Wait until a kernel says nothing more."""
    before, last = -1, 0
    while before != last:
        await asyncio.sleep(0.5)
        kernels = (await link.call("kernel.list"))["kernels"]
        before, last = last, next(k["last_seq"] for k in kernels if k["kernel_id"] == name)


async def drain(stream: Stream) -> None:
    """Read a stream to its end."""
    async for _ in stream:
        pass


async def test_an_output_that_is_too_large_is_replaced_by_an_event(cells: Cells) -> None:
    code = (
        "from IPython.display import publish_display_data\n"
        "publish_display_data({'text/plain': 'x' * 9_000_000})\nprint('after')"
    )
    with anyio.fail_after(60):
        msg_id = await cells.submit(code)
        found, reply = await cells.outputs(msg_id)
        assert reply["status"] == "ok"
        event = await cells.event("oversize")
    assert (event["msg_type"], event["parent_id"]) == ("display_data", msg_id)
    assert event["bytes"] > 9_000_000
    assert [content["text"] for kind, content in found if kind == "stream"] == ["after\n"]


@pytest.fixture
def other_kernel(machine: SupervisorProcess) -> str:
    """A kernelspec of a program: ipykernel, but as a process of its own."""
    folder = machine.workspace / ".local/share/jupyter/kernels/other"
    folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Other", "language": "python", "env": {"GREETING": "hi"}}
    (folder / "kernel.json").write_text(json.dumps(spec))
    return "other"


async def test_a_kernel_of_another_program_runs_the_same(link: Link, other_kernel: str) -> None:
    with anyio.fail_after(60):
        specs = (await link.call("info"))["kernelspecs"]
        assert specs["other"] == {"display_name": "Other", "language": "python"}
        await link.call("kernel.start", kernel_id="process", name=other_kernel)
        cells = Cells(link, "process")
        assert await cells.run("import os; print(os.environ['GREETING'])") == "hi\n"
        text = await cells.run("print('w' * 3_000_000)")
        assert text == "w" * 3_000_000 + "\n"
        assert (await link.call("kernel.restart", kernel_id="process"))["epoch"] == 2
        assert await cells.run("print(2)") == "2\n"
        await link.call("kernel.stop", kernel_id="process")


async def test_a_kernel_that_does_not_start_says_its_last_words(
    link: Link, machine: SupervisorProcess
) -> None:
    folder = machine.workspace / ".local/share/jupyter/kernels/broken"
    folder.mkdir(parents=True)
    argv = ["sh", "-c", "echo no such module >&2; exit 3"]
    (folder / "kernel.json").write_text(json.dumps({"argv": argv}))
    with anyio.fail_after(30):
        with pytest.raises(InfrastructureError, match="no such module"):
            await link.call("kernel.start", kernel_id="broken", name="broken")
        kernels = (await link.call("kernel.list"))["kernels"]
    assert "broken" not in [kernel["kernel_id"] for kernel in kernels]


@pytest.mark.parametrize("spec", [{"argv": ["sh", "a\0b"]}, {"argv": ["sh"], "env": {"A=B": "c"}}])
async def test_a_kernelspec_with_which_nothing_can_be_started_is_refused(
    link: Link, machine: SupervisorProcess, spec: dict[str, object]
) -> None:
    folder = machine.workspace / ".local/share/jupyter/kernels/odd"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kernel.json").write_text(json.dumps(spec))
    with anyio.fail_after(30), pytest.raises(InvalidRequest, match="cannot be started"):
        await link.call("kernel.start", kernel_id="odd", name="odd")


async def test_a_kernel_that_is_stopped_ends_its_streams(cells: Cells, link: Link) -> None:
    with anyio.fail_after(30):
        await link.call("kernel.stop", kernel_id=cells.kernel_id)
        await cells.event("exited")
        assert await cells.stream.receive() is None
        with pytest.raises(NotFound):
            await link.call("kernel.restart", kernel_id=cells.kernel_id)


async def test_wrong_requests_are_refused(cells: Cells, link: Link) -> None:
    with anyio.fail_after(30):
        with pytest.raises(Conflict):
            await link.call("kernel.start", kernel_id=cells.kernel_id, name="python3")
        with pytest.raises(NotFound):
            await link.call("kernel.start", kernel_id="new", name="cobol")
        with pytest.raises(NotFound):
            await link.call("kernel.interrupt", kernel_id="nobody")
        for wrong in ("", "../x", "a b", "x" * 65, 5, None):
            with pytest.raises(InvalidRequest):
                await link.call("kernel.start", kernel_id=wrong, name="python3")
        stream = link.open("kernel.attach", kernel_id=cells.kernel_id, after=0)
        await stream.send(wire.pack_parts([b'{"channel":"heart"}', b""]), wire.KERNEL)
        with pytest.raises(InvalidRequest):
            await drain(stream)
        assert await cells.run("print('still here')") == "still here\n"


async def test_a_link_lost_while_a_kernel_starts_leaves_a_whole_kernel(
    machine: SupervisorProcess,
) -> None:
    with anyio.fail_after(30):
        async with machine.link() as first:
            first.open("kernel.start", kernel_id="half-way", name="python3")
            await first.call("info")
        async with machine.link() as second:
            await asyncio.sleep(0)
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                kernels = (await second.call("kernel.list"))["kernels"]
                if any(k["kernel_id"] == "half-way" and k["last_seq"] for k in kernels):
                    break
                await asyncio.sleep(0.02)
            assert await Cells(second, "half-way").run("print(1)") == "1\n"
            await second.call("kernel.stop", kernel_id="half-way")
