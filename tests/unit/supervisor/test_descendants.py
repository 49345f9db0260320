"""What kernels and commands start ends with them, wherever it has gone."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import uuid
from pathlib import Path

import anyio
import pytest

from sandbox.link.link import Link
from sandbox.supervisor.restraint import RESERVED_DESCRIPTORS, Marks

from ...support.supervisorprocess import Cells, SupervisorProcess, run_command

pytestmark = pytest.mark.anyio

SPIN = """
import os, subprocess, sys
spin = [sys.executable, "-c", "import os; open(f'{os.getpid()}.spins', 'w').close()\\nwhile 1: 0"]
subprocess.Popen(spin)
subprocess.Popen(spin, start_new_session=True, env={})
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, spin, {})
    os._exit(0)
_ = os.wait()
"""
"""Starts three: one as usual, one that hides, one that hides and has no parent either."""


def runs(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


async def gone(pids: list[int]) -> None:
    """Wait until none of them runs: what was killed needs a moment to end."""
    with anyio.fail_after(5):
        while any(map(runs, pids)):
            await asyncio.sleep(0.01)


async def spinners(machine: SupervisorProcess, number: int) -> list[int]:
    """The pids of what :data:`SPIN` started, once all of it runs."""
    while len(found := list(machine.workspace.glob("*.spins"))) < number:
        await asyncio.sleep(0.01)
    for path in found:
        path.unlink()
    return [int(path.stem) for path in found]


async def test_what_a_kernel_has_started_ends_when_it_dies_by_itself(
    cells: Cells, link: Link, machine: SupervisorProcess
) -> None:
    with anyio.fail_after(30):
        await cells.run(SPIN)
        pids = await spinners(machine, 3)
        assert all(map(runs, pids))
        await cells.submit("os._exit(3)")
        exited = await cells.event("exited")
        assert (exited["exit_code"], exited["killed_by_us"], exited["processes"]) == (3, False, 3)
        await gone(pids)
        await link.call("kernel.restart", kernel_id=cells.kernel_id)
        assert await cells.run("print(1)") == "1\n"


@pytest.mark.parametrize("op", ["kernel.restart", "kernel.stop"])
async def test_what_a_kernel_has_started_ends_when_it_is_ended(
    cells: Cells, link: Link, machine: SupervisorProcess, op: str
) -> None:
    with anyio.fail_after(30):
        await cells.run(SPIN)
        pids = await spinners(machine, 3)
        await link.call(op, kernel_id=cells.kernel_id)
        await gone(pids)


async def test_what_a_command_has_started_ends_with_its_time(
    link: Link, machine: SupervisorProcess
) -> None:
    with anyio.fail_after(30):
        _, _, ending = await run_command(
            link,
            command="(env -i setsid sh -c 'echo $$ > alone; exec sleep 1000' &); sleep 1000",
            timeout_s=0.5,
        )
        assert ending["timed_out"]
        await gone([int((machine.workspace / "alone").read_text())])


async def test_what_other_kernels_and_commands_have_started_goes_on(
    cells: Cells, link: Link, machine: SupervisorProcess
) -> None:
    with anyio.fail_after(30):
        await run_command(link, command="sleep 1000 & echo $! > of-a-command")
        other = uuid.uuid4().hex
        await link.call("kernel.start", kernel_id=other, name="python3")
        await Cells(link, other).run(SPIN)
        theirs = [
            *await spinners(machine, 3),
            int((machine.workspace / "of-a-command").read_text()),
        ]
        await cells.run(SPIN)
        ours = await spinners(machine, 3)
        await link.call("kernel.stop", kernel_id=cells.kernel_id)
        await gone(ours)
        assert all(map(runs, theirs))
        await link.call("kernel.stop", kernel_id=other)
        os.kill(theirs[-1], 9)


async def test_who_lowers_its_own_mark_ends_with_its_parents(cells: Cells, link: Link) -> None:
    code = (
        "import os, resource, signal, subprocess, sys\n"
        "def hide(): resource.setrlimit(resource.RLIMIT_RSS, (5000, 5000))\n"
        "child = subprocess.Popen(['sleep', '1000'], preexec_fn=hide)\n"
        "print(child.pid)"
    )
    with anyio.fail_after(30):
        pid = int(await cells.run(code))
        await link.call("kernel.stop", kernel_id=cells.kernel_id)
        await gone([pid])


async def test_the_end_of_its_time_ends_what_a_cell_has_started_and_nothing_older(
    cells: Cells, link: Link, machine: SupervisorProcess
) -> None:
    with anyio.fail_after(30):
        await cells.run(SPIN)
        older = await spinners(machine, 3)
        msg_id = await cells.submit(f"{SPIN}\nimport time; time.sleep(1000)")
        newer = await spinners(machine, 3)
        await link.call("kernel.interrupt", kernel_id=cells.kernel_id, expired=True)
        await gone(newer)
        assert all(map(runs, older))
        assert (await cells.event("ended"))["processes"] == 3
        _, reply = await cells.outputs(msg_id)
        assert reply["ename"] == "KeyboardInterrupt"
        assert await cells.run("print(2)") == "2\n"
        await link.call("kernel.stop", kernel_id=cells.kernel_id)


async def test_what_the_kernel_has_not_told_of_is_known_by_its_age(
    cells: Cells, link: Link
) -> None:
    """No audit event tells of what the resource tracker of multiprocessing is started with."""
    silent = (
        "from multiprocessing.util import spawnv_passfds\n"
        "print(spawnv_passfds(b'/bin/sleep', [b'sleep', b'1000'], []), flush=True)\n"
    )
    with anyio.fail_after(30):
        older = int(await cells.run(silent))
        await asyncio.sleep(0.05)  # ages are told in hundredths of a second
        msg_id = await cells.submit(f"{silent}import time; time.sleep(1000)")
        while b"stdout" not in (said := await cells.next())[1][-1]:
            pass
        newer = int(json.loads(said[1][4])["text"])
        await link.call("kernel.interrupt", kernel_id=cells.kernel_id, expired=True)
        await gone([newer])
        assert runs(older)
        await cells.outputs(msg_id)
        await link.call("kernel.stop", kernel_id=cells.kernel_id)
        await gone([older])


async def test_code_gives_way_to_the_supervisor_and_leaves_it_room(
    cells: Cells, link: Link, machine: SupervisorProcess
) -> None:
    look = (
        "import json, os, resource as r; "
        "print(json.dumps([os.nice(0), r.getrlimit(r.RLIMIT_NPROC), r.getrlimit(r.RLIMIT_NOFILE),"
        " open('/proc/self/oom_score_adj').read().strip()]))"
    )
    # A program may run for a moment before the supervisor, which has started it, sees to that.
    score = "open('/proc/self/oom_score_adj').read()"
    later = (
        f"import os, time\nwhile os.nice(0) != 19 or '750' not in {score}: time.sleep(0.01)\n{look}"
    )
    ours = resource.prlimit(machine.process.pid, resource.RLIMIT_NPROC)[1]
    with anyio.fail_after(30):
        command, _, _ = await run_command(link, argv=["python3", "-c", later])
        for nice, processes, files, score in (
            json.loads(await cells.run(look)),
            json.loads(command),
        ):
            assert (nice, score) == (19, "750")
            assert processes[0] == processes[1]
            assert processes[1] < ours or ours == resource.RLIM_INFINITY
            assert files[0] == files[1]
    assert os.getpriority(os.PRIO_PROCESS, machine.process.pid) == os.getpriority(
        os.PRIO_PROCESS, os.getpid()
    )
    soft, hard = resource.prlimit(machine.process.pid, resource.RLIMIT_NOFILE)
    assert hard - soft == RESERVED_DESCRIPTORS
    assert files[1] == hard


def test_marks_are_never_given_twice_and_a_lowered_one_was_not_given() -> None:
    marks, others = Marks(), Marks()
    given = [marks.new() for _ in range(1000)]
    assert len(set(given)) == 1000
    assert all(map(marks.is_given, given))
    assert not any(map(others.is_given, given))
    assert not marks.is_given(given[-1] - 1024)
    assert not marks.is_given(1 << 30)
    assert marks.is_given(resource.RLIM_INFINITY)
