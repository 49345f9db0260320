"""What a kernel says at the end of a cell, and cells that end themselves."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.kernels.replies import exit_code_of
from sandbox.kernels.verdict import EXIT_KEPT, EXIT_REASON

from .conftest import Bench
from .liars import Content, Liar, lied_to

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("code", [0, 3, -1, 255, 2**31 - 1, -(2**31)])
def test_an_exit_code_is_read(code: int) -> None:
    assert exit_code_of({"sandbox": {"exit_code": code}}) == code


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"sandbox": None},
        {"sandbox": [0]},
        {"sandbox": {}},
        *({"sandbox": {"exit_code": code}} for code in (True, "0", 0.0, None, 2**31, -(2**40))),
    ],
)
def test_what_cannot_be_one_is_none(metadata: dict[str, Any]) -> None:
    assert exit_code_of(metadata) is None


async def test_exit_with_0_is_success_and_says_what_was_not_run(bench: Bench) -> None:
    async with bench.controller() as kernels:
        execution = await kernels.execute("x = 1\nprint('a')\nexit(0)\nprint('b')")
        result = await execution.wait(10)
        after = await (await kernels.execute("x")).wait(10)

    assert (result.status, result.state, result.exit_code) == ("ok", "kept", 0)
    assert result.reason == f"{EXIT_REASON} {EXIT_KEPT}"
    assert [output["text"] for output in result.outputs] == ["a\n"]
    assert execution.has_exited
    assert (after.status, after.exit_code, after.reason) == ("ok", None, None)


async def test_exit_with_another_code_is_an_error_with_that_code(bench: Bench) -> None:
    async with bench.controller() as kernels:
        result = await (await kernels.execute("exit(3)")).wait(10)

    assert (result.status, result.state, result.exit_code) == ("error", "kept", 3)
    assert result.error is not None
    assert (result.error.name, result.error.value) == ("SystemExit", "3")
    assert result.reason == EXIT_REASON


async def test_a_process_that_exits_takes_its_state_along_and_its_code_is_told(
    bench: Bench,
) -> None:
    async with bench.controller() as kernels:
        result = await (await kernels.execute("die(3)")).wait(10)
        behind = kernels.infos[0].reason

    assert (result.status, result.state, result.exit_code) == ("died", "lost", 3)
    assert result.reason == behind
    assert "code 3" in (result.reason or "")
    assert "os._exit" in (result.reason or "")


async def test_every_cell_of_bash_has_an_exit_code_and_has_not_ended_itself(
    bench: Bench,
) -> None:
    async with bench.controller() as kernels:
        kernel_id = (await kernels.start("bash")).kernel_id
        execution = await kernels.execute("exit(0)", kernel_id=kernel_id)
        result = await execution.wait(10)

    assert (result.status, result.exit_code, result.reason) == ("ok", 0, None)
    assert not execution.has_exited


async def test_a_forged_code_changes_no_status() -> None:
    def forges(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
        told = {"ename": "ValueError", "evalue": "no", "traceback": []}
        liar.say("iopub", "error", told, msg_id)
        metadata = {"sandbox": {"exit_code": 0}}
        reply = {"status": "error", "execution_count": 1, **told}
        liar.say("shell", "execute_reply", reply, msg_id, metadata=metadata)
        liar.say("iopub", "status", {"execution_state": "idle"}, msg_id)

    async with lied_to(forges) as (kernels, _):
        result = await (await kernels.execute("1")).wait(5)

    assert (result.status, result.exit_code, result.reason) == ("error", 0, None)
