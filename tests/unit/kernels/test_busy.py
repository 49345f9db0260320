"""While a cell runs, what a kernel would be asked is answered at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from sandbox.errors import Conflict
from sandbox.kernels.busy import meanwhile
from sandbox.kernels.kernels import Kernels

from ...support.waiting import until
from .conftest import Bench
from .test_conversation import client, started

pytestmark = pytest.mark.anyio

Question = Callable[[Kernels], Awaitable[Any]]


@pytest.mark.parametrize(
    "ask",
    [
        lambda kernels: kernels.complete("num"),
        lambda kernels: kernels.inspect("num"),
        lambda kernels: kernels.check("num"),
    ],
)
async def test_callers_are_told_what_runs_and_since_when(bench: Bench, ask: Question) -> None:
    async with bench.controller() as kernels:
        slow = await kernels.execute("sleep(60)")
        await until(lambda: slow.was_seen)
        behind = await kernels.execute("1")
        with anyio.fail_after(2), pytest.raises(Conflict) as refused:
            await ask(kernels)
        await slow.cancel()
        await behind.wait(10)
        await ask(kernels)

    assert slow.execution_id in refused.value.message
    assert " has been running for 0." in refused.value.message
    assert "1 more cell waits" in refused.value.message
    assert "interrupt" in refused.value.remedy


async def test_a_cell_that_ends_in_an_instant_is_waited_for(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await (await kernels.execute("number = 1")).wait(10)
        await kernels.execute("sleep(0.05)")
        assert (await kernels.complete("num")).matches == ["number"]


@pytest.mark.parametrize(
    ("kind", "content", "answer"),
    [
        (
            "complete",
            {"code": "wo + ", "cursor_pos": 2},
            {"status": "ok", "matches": [], "cursor_start": 2, "cursor_end": 2, "metadata": {}},
        ),
        (
            "inspect",
            {"code": "wo", "cursor_pos": 2, "detail_level": 0},
            {"status": "ok", "found": False, "data": {}, "metadata": {}},
        ),
        ("is_complete", {"code": "for x in y:"}, {"status": "unknown"}),
    ],
)
async def test_clients_of_jupyter_get_an_empty_answer_and_the_kernel_stays_busy(
    bench: Bench, kind: str, content: dict[str, Any], answer: dict[str, Any]
) -> None:
    async with bench.controller() as kernels:
        await started(kernels)
        agents = await kernels.execute("sleep(60)")
        await agents.executing.wait()
        async with client(kernels) as one:
            asked = await one.say(f"{kind}_request", **content)
            assert (await one.hear(f"{kind}_reply", asked)).content == answer
            await one.hear("status", asked, execution_state="idle")
            await one.hear("status", agents.execution_id, execution_state="busy")
            await agents.cancel()
            await one.hear("status", agents.execution_id, execution_state="idle")
            asked = await one.say("complete_request", code="wo", cursor_pos=2)
            await one.hear("complete_reply", asked)


async def test_history_is_refused_so_that_nobody_takes_nothing_for_all(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await started(kernels)
        agents = await kernels.execute("sleep(60)")
        await agents.executing.wait()
        async with client(kernels) as one:
            asked = await one.say("history_request", hist_access_type="tail", n=10)
            reply = (await one.hear("history_reply", asked)).content
        await agents.cancel()
        await agents.wait(10)

    assert (reply["status"], reply["ename"], reply["history"]) == ("error", "KernelBusy", [])


@pytest.mark.parametrize("at", [-1, 3, True, "1", None])
def test_a_cursor_outside_of_the_code_is_at_its_end(at: Any) -> None:
    answer = meanwhile("complete_request", {"code": "ab", "cursor_pos": at})
    assert answer is not None
    assert (answer["cursor_start"], answer["cursor_end"]) == (2, 2)


def test_what_has_no_empty_answer_waits_for_the_kernel() -> None:
    assert meanwhile("comm_info_request", {}) is None
    assert meanwhile("complete_request", {"code": 5}) is not None
