"""Branches and checkpoints as the controller asks for them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import uuid
from pathlib import Path
from typing import Any

import anyio
import pytest

from sandbox.errors import Conflict, InfrastructureError, NotFound, SandboxError
from sandbox.link.link import Link

from ...support.branchmodel import sequences
from ...support.branchplay import play
from ...support.supervisorprocess import Cells, SupervisorProcess

pytestmark = pytest.mark.anyio

FEW = 15


async def branch(link: Link, cells: Cells, **options: Any) -> Cells:
    """A branch of a kernel, attached to."""
    new_id = uuid.uuid4().hex
    made = await link.call("kernel.branch", kernel_id=cells.kernel_id, new_id=new_id, **options)
    assert (made["kernel_id"], made["name"], made["epoch"]) == (new_id, "python3", 1)
    return Cells(link, new_id)


async def on(link: Link, op: str, cells: Cells, **fields: Any) -> dict[str, Any]:
    """Do an operation on a kernel."""
    return await link.call(f"kernel.{op}", kernel_id=cells.kernel_id, **fields)


def children(machine: SupervisorProcess) -> set[int]:
    """The children of the supervisor, those that have ended included."""
    pid = machine.process.pid
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


async def test_random_sequences_differ_in_nothing_from_a_model(link: Link) -> None:
    for seed in range(sequences(FEW)):
        with anyio.fail_after(60):
            await play(link, seed)


async def test_a_branch_is_a_kernel_of_its_own(
    cells: Cells, link: Link, machine: SupervisorProcess
) -> None:
    with anyio.fail_after(30):
        await cells.run("x = [1]")
        made = await branch(link, cells)
        await made.run("x.append(2); import subprocess; child = subprocess.Popen(['sleep', '99'])")
        further = await branch(link, cells)
        assert await cells.run("print(x)") == "[1]\n"
        assert await made.run("print(x)") == "[1, 2]\n"
        await made.submit("while True: pass")
        assert await further.run("import os; x.append(3); print(x)") == "[1, 3]\n"
        pid = int(await further.run("print(os.getpid())"))
        await on(link, "interrupt", made)
        await on(link, "stop", made)
        await further.submit("os._exit(7)")
        exited = await further.event("exited")
        assert (exited["exit_code"], exited["killed_by_us"]) == (7, False)
        assert pid not in children(machine)
        restarted = await on(link, "restart", further)
        assert restarted["epoch"] == 2
        assert await further.run("print('x' in globals())") == "False\n"
        assert await cells.run("print(x)") == "[1]\n"


async def test_the_number_of_the_next_cell_goes_on_in_a_branch(cells: Cells, link: Link) -> None:
    with anyio.fail_after(30):
        await cells.run("1")
        made = await branch(link, cells)
        _, reply = await made.outputs(await made.submit("2"))
        _, other = await cells.outputs(await cells.submit("2"))
        assert reply["execution_count"] == other["execution_count"]


async def test_a_rollback_replaces_the_process_and_says_so_before_it_starts(
    cells: Cells, link: Link
) -> None:
    with anyio.fail_after(30):
        await cells.run("x = [1]; import random; random.seed(4)")
        made = await on(link, "checkpoint", cells, name="before")
        assert made["name"] == "before"
        assert not made["files"]
        assert made["memory_bytes"] > 0
        drawn = await cells.run("x.clear(); y = 1; print(random.random())")
        for epoch in (2, 3):
            answer = await on(link, "rollback", cells, name="before")
            assert answer["epoch"] == epoch
            assert await cells.run("print(x, 'y' in globals())") == "[1] False\n"
            assert await cells.run("x.clear(); print(random.random())") == drawn
        exited = [await cells.event("exited") for _ in range(2)]  # which takes its time
        assert [event["epoch"] for event in exited] == [1, 2]
        assert all(event["killed_by_us"] for event in exited)
        assert [(event["event"], event["epoch"]) for event in cells.events] == [
            ("started", 1),
            *(("rolled_back", 2), ("started", 2)),
            *(("rolled_back", 3), ("started", 3)),
        ]


async def test_a_kernel_that_has_ended_or_was_restarted_is_rolled_back(
    cells: Cells, link: Link
) -> None:
    with anyio.fail_after(30):
        await cells.run("import os; x = 1")
        await on(link, "checkpoint", cells, name="kept")
        await cells.submit("os._exit(1)")
        await cells.event("exited")
        with pytest.raises(Conflict, match="has ended"):
            await on(link, "branch", cells, new_id="other")
        await on(link, "rollback", cells, name="kept")
        assert await cells.run("print(x)") == "1\n"
        await on(link, "restart", cells)
        await on(link, "rollback", cells, name="kept")
        assert await cells.run("print(x)") == "1\n"


async def test_checkpoints_are_listed_dropped_and_end_with_their_kernel(
    cells: Cells, link: Link, machine: SupervisorProcess
) -> None:
    with anyio.fail_after(30):
        await cells.run("x = 1")
        before = children(machine)
        for name in ("one", "two"):
            await on(link, "checkpoint", cells, name=name, auto=True)
        found = (await on(link, "checkpoints", cells))["checkpoints"]
        assert [each["name"] for each in found] == ["one", "two"]
        assert all(each["alive"] for each in found)
        with pytest.raises(Conflict, match="already"):
            await on(link, "checkpoint", cells, name="one")
        assert await on(link, "drop_checkpoint", cells, name="one") == {}
        with pytest.raises(NotFound):
            await on(link, "rollback", cells, name="one")
        assert len(children(machine) - before) == 1
        await on(link, "stop", cells)
        assert not children(machine) - before


async def test_a_checkpoint_whose_process_ends_is_told_as_lost(
    cells: Cells, link: Link, machine: SupervisorProcess
) -> None:
    with anyio.fail_after(30):
        await cells.run("x = 1")
        before = children(machine)
        await on(link, "checkpoint", cells, name="kept")
        (pid,) = children(machine) - before
        os.kill(pid, signal.SIGKILL)
        lost = await cells.event("checkpoint_lost")
        assert (lost["name"], lost["signal"], lost["oom"]) == ("kept", 9, False)
        (found,) = (await on(link, "checkpoints", cells))["checkpoints"]
        assert not found["alive"]
        with pytest.raises(Conflict, match="lost"):
            await on(link, "rollback", cells, name="kept")
        assert await cells.run("print(x)") == "1\n"
        await on(link, "checkpoint", cells, name="kept")  # in its place
        await on(link, "rollback", cells, name="kept")
        assert await cells.run("print(x)") == "1\n"


async def test_a_kernel_that_runs_a_cell_is_not_branched(
    cells: Cells, link: Link, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    with anyio.fail_after(30):
        code = f"import time; open({str(begun)!r}, 'w').close()\nwhile True: time.sleep(0.01)"
        msg_id = await cells.submit(code)
        while not begun.exists():
            await anyio.sleep(0.01)
        with pytest.raises(Conflict, match="runs a cell"):
            await on(link, "branch", cells, new_id="other")
        with pytest.raises(Conflict, match="runs a cell"):
            await on(link, "checkpoint", cells, name="one")
        await on(link, "interrupt", cells)
        await cells.outputs(msg_id)
        await branch(link, cells)


async def test_a_refusal_names_every_blocker_and_what_to_do(cells: Cells, link: Link) -> None:
    with anyio.fail_after(30):
        await cells.run(
            "import socket, threading, time; made = socket.socket(); end = threading.Event()\n"
            "thread = threading.Thread(target=end.wait, name='worker'); thread.start()"
        )
        kernels = (await link.call("kernel.list"))["kernels"]
        for op, fields in (("branch", {"new_id": "other"}), ("checkpoint", {"name": "one"})):
            with pytest.raises(Conflict, match=r"'worker'.*join.*not connected.*close it"):
                await on(link, op, cells, **fields)
        assert (await on(link, "checkpoints", cells))["checkpoints"] == []
        assert len((await link.call("kernel.list"))["kernels"]) == len(kernels)
        await cells.run("end.set(); thread.join(); made.close()")
        await branch(link, cells)


@pytest.mark.parametrize(
    "said",
    [
        "1",
        "None",
        "{'branched': 1}",
        "{'branched': -1}",
        "{'branched': 2**70}",
        "{'branched': True}",
        "{'branched': os.getppid()}",
        "{'branched': os.getpid()}",
        "{'failed': ['x' * 10000]}",
        "{'blockers': 'x'}",
        "{'blockers': [1, {}, {'what': {}, 'remedy': 'y' * 10000}] * 100}",
        "os.getpid",
        "1 / 0",
    ],
)
async def test_what_a_kernel_says_of_its_branch_is_not_believed(
    cells: Cells, link: Link, machine: SupervisorProcess, said: str
) -> None:
    with anyio.fail_after(30):
        await cells.run(
            f"import os; x = 1; get_ipython().kernel.orders['branch'] = lambda *_: {said}"
        )
        before = children(machine)
        for op, fields in (("branch", {"new_id": "other"}), ("checkpoint", {"name": "one"})):
            with pytest.raises((Conflict, InfrastructureError)) as caught:
                await on(link, op, cells, **fields)
            assert len(str(caught.value)) < 5000
        assert children(machine) == before
        assert await cells.run("print(x)") == "1\n"


async def test_the_kernel_of_another_language_is_refused_by_name(
    link: Link, machine: SupervisorProcess
) -> None:
    folder = machine.workspace / ".local/share/jupyter/kernels/other"
    folder.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": argv}))
    kernel_id = uuid.uuid4().hex
    with anyio.fail_after(60):
        await link.call("kernel.start", kernel_id=kernel_id, name="other")
        for op, fields in (("branch", {"new_id": "other"}), ("checkpoint", {"name": "one"})):
            with pytest.raises(Conflict, match="'other'"):
                await link.call(f"kernel.{op}", kernel_id=kernel_id, **fields)
        await link.call("kernel.stop", kernel_id=kernel_id)


async def test_unknown_kernels_checkpoints_and_names_are_refused(cells: Cells, link: Link) -> None:
    with anyio.fail_after(30):
        for op, fields, error in (
            ("rollback", {"name": "none"}, NotFound),
            ("drop_checkpoint", {"name": "none"}, NotFound),
            ("checkpoint", {"name": "../x"}, SandboxError),
            ("checkpoint", {"name": "x", "files": 1}, SandboxError),
            ("branch", {"new_id": cells.kernel_id}, Conflict),
            ("branch", {"new_id": "x", "reseed": "no"}, SandboxError),
        ):
            with pytest.raises(error):
                await on(link, op, cells, **fields)
        with pytest.raises(NotFound):
            await link.call("kernel.branch", kernel_id="unknown", new_id="x")


async def test_orphans_of_cells_leave_no_places_taken(
    cells: Cells, machine: SupervisorProcess
) -> None:
    with anyio.fail_after(30):
        await cells.run(
            "import os\n"
            "for _ in range(20):\n"
            "    if (pid := os.fork()) == 0:\n"
            "        if os.fork(): os._exit(0)\n"
            "        os._exit(3)\n"
            "    _ = os.waitpid(pid, 0)"
        )
        kernel = int(await cells.run("print(os.getpid())"))

        def orphans() -> set[int]:
            return {pid for pid in children(machine) if not _lives(pid)} - {kernel}

        while orphans():
            await asyncio.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return True  # somebody has waited for it


async def test_a_branch_is_copied_at_once_after_it_began(cells: Cells, link: Link) -> None:
    with anyio.fail_after(60):
        for _ in range(10):
            made = await branch(link, cells)
            await on(link, "checkpoint", made, name="c")
            await on(link, "rollback", made, name="c")
            await on(link, "checkpoint", made, name="d")
            await on(link, "stop", made)


async def test_what_no_snapshot_holds_is_told_when_files_are_kept_and_put_back(
    cells: Cells, link: Link, machine: SupervisorProcess
) -> None:
    with anyio.fail_after(60):
        os.mkfifo(machine.workspace / "fifo")
        made = await on(link, "checkpoint", cells, name="with", files=True)
        assert (made["left_out"], made["left_out_count"]) == (["fifo"], 1)
        assert (made["changing"], made["changing_count"]) == ([], 0)
        (machine.workspace / "fifo").unlink()
        back = await on(link, "rollback", cells, name="with")
        assert (back["lost"], back["lost_count"]) == (["fifo"], 1)
        made = await on(link, "checkpoint", cells, name="without")
        assert "left_out" not in made


async def test_files_go_back_with_the_state_where_they_were_kept(
    cells: Cells, link: Link, machine: SupervisorProcess
) -> None:
    file = machine.workspace / "notes"
    with anyio.fail_after(60):
        await cells.run("x = 1; open('notes', 'w').write('before') and None")
        made = await on(link, "checkpoint", cells, name="with", files=True)
        assert made["files"]
        await on(link, "checkpoint", cells, name="without")
        await cells.run("x = 2; open('notes', 'w').write('after') and None")
        await on(link, "rollback", cells, name="without")
        assert file.read_text() == "after"
        await on(link, "rollback", cells, name="with")
        assert file.read_text() == "before"
        assert await cells.run("print(x)") == "1\n"
        await on(link, "drop_checkpoint", cells, name="with")
