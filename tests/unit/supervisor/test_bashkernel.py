"""The Bash kernel over a link, on this machine."""

from __future__ import annotations

import json
import uuid
from typing import Any

import anyio
import pytest

from sandbox.link.link import Link

from ...support.sleepers import sleeps
from ...support.supervisorprocess import Cells, SupervisorProcess

pytestmark = pytest.mark.anyio


@pytest.fixture
async def cells(link: Link) -> Cells:
    kernel_id = uuid.uuid4().hex
    with anyio.fail_after(30):
        await link.call("kernel.start", kernel_id=kernel_id, name="bash")
        return Cells(link, kernel_id)


async def ended(cells: Cells, code: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The reply of a cell and what its metadata say for us."""
    msg_id = await cells.submit(code)
    while True:
        head, parts = await cells.next()
        if head["channel"] == "shell" and json.loads(parts[2]).get("msg_id") == msg_id:
            return json.loads(parts[4]), json.loads(parts[3])["sandbox"]


async def test_a_reply_tells_the_exit_code_and_whether_the_shell_is_another(cells: Cells) -> None:
    with anyio.fail_after(30):
        reply, told = await ended(cells, "v=1")
        assert (reply["status"], told) == ("ok", {"exit_code": 0})
        reply, told = await ended(cells, "(exit 7)")
        assert (reply["status"], reply["ename"], reply["evalue"]) == ("error", "exit code", "7")
        assert told == {"exit_code": 7}
        reply, told = await ended(cells, 'echo "abc')
        assert (reply["status"], reply["ename"]) == ("error", "bash")
        assert reply["evalue"].startswith("line 1: unexpected EOF while looking for matching `\"'")
        assert told == {"exit_code": 2}
        reply, told = await ended(cells, "exit 0")
        assert (reply["status"], told) == ("ok", {"exit_code": 0, "state": "restarted"})
        reply, told = await ended(cells, "exit 3")
        assert (reply["status"], told) == ("error", {"exit_code": 3, "state": "restarted"})
        assert await cells.run("echo [$v]") == (
            "[a new shell, without the variables of the last: exit 3]\n[]\n"
        )


async def test_what_comes_after_a_cell_belongs_to_it(
    cells: Cells, machine: SupervisorProcess
) -> None:
    go = machine.workspace / "go"
    with anyio.fail_after(30):
        first = await cells.submit(f"(until [ -e {go} ]; do sleep 0.02; done; echo late) &")
        await cells.outputs(first)
        await cells.outputs(await cells.submit(f"touch {go}"))
        while True:
            _, parts = await cells.next()
            if len(parts) > 4 and b"late" in parts[4]:
                break
    assert json.loads(parts[2])["msg_id"] == first


@pytest.mark.parametrize("expired", [False, True])
async def test_nothing_of_a_cell_runs_after_its_interrupt(
    link: Link, cells: Cells, machine: SupervisorProcess, expired: bool
) -> None:
    begun = machine.workspace / f"begun-{expired}"
    with anyio.fail_after(30):
        await cells.run("v=5")
        msg_id = await cells.submit(f"echo $$ > {begun}; sleep 60; echo never; sleep 60")
        is_asleep = sleeps(begun)
        while not is_asleep():
            await anyio.sleep(0.01)
        await link.call("kernel.interrupt", kernel_id=cells.kernel_id, expired=expired)
        outputs, reply = await cells.outputs(msg_id)
        assert [kind for kind, _ in outputs] == ["execute_input", "error"]
        assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
        assert await cells.run("echo $v") == "5\n"


async def test_much_output_comes_whole(cells: Cells) -> None:
    with anyio.fail_after(60):
        assert len(await cells.run("head -c 8000000 /dev/zero | tr '\\0' x")) == 8_000_000
