"""A supervisor and kernels that lie."""

from __future__ import annotations

import tracemalloc
from typing import Any

import anyio
import pytest

from sandbox.bulkheads.overruns import MAX_OVERRUNS, Overruns
from sandbox.errors import InfrastructureError, ProtocolError, SandboxError
from sandbox.kernels.kernels import Kernels
from sandbox.link import wire
from sandbox.outputs.collector import OutputCollector
from sandbox.policy.models import Limits

from ...support.machines import MemoryJournal, scripted
from ...support.waiting import until
from .conftest import SESSION
from .liars import Content, Liar, lied_to

pytestmark = pytest.mark.anyio


def ends(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
    liar.end(msg_id)


def is_silent(liar: Liar, _kind: str, _msg_id: str, _content: Content) -> None:
    liar.is_busy = True


async def test_numbers_that_come_again_are_not_counted_twice() -> None:
    def doubles(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
        first = liar.seq + 1
        for seq in (first, first, first - 1, first + 1, first):
            liar.say("iopub", "stream", {"name": "stdout", "text": f"{seq} "}, msg_id, seq=seq)
        liar.seq = first + 1
        liar.end(msg_id)

    async with lied_to(doubles) as (kernels, liar):
        result = await (await kernels.execute("1")).wait(5)
        first = liar.seq - 3

    assert result.outputs[0]["text"] == f"{first} {first + 1} "


async def test_messages_of_other_cells_and_epochs_do_not_end_a_cell() -> None:
    def mixes(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
        liar.end("another")
        liar.say("shell", "execute_reply", {"status": "ok"}, msg_id, epoch=9)
        liar.say("iopub", "status", {"execution_state": "idle"}, msg_id, epoch=9)
        liar.say("iopub", "stream", {"name": "stdout", "text": "old"}, msg_id, epoch=9)
        liar.say("control", "execute_reply", {"status": "ok"}, msg_id)
        liar.event({"event": "exited", "exit_code": 1, "signal": None, "oom": False}, epoch=9)

    async with lied_to(mixes) as (kernels, _):
        execution = await kernels.execute("1")
        result = await execution.wait(0.3)

    assert result.status == "running"
    assert result.outputs == []


@pytest.mark.parametrize(
    "reply",
    [
        {"status": ["ok"]},
        {"status": None, "execution_count": "many"},
        {"status": "error"},
        {"status": "error", "ename": 5, "evalue": {}, "traceback": "text"},
        {"status": "error", "ename": "x" * 10**6, "evalue": "y" * 10**6, "traceback": ["z"] * 9999},
        {"status": "aborted"},
        {"execution_count": -1, "payload": [{"source": "page", "data": 5}, 7, {}]},
        {"payload": {"source": "page"}},
    ],
)
async def test_strange_replies_end_a_cell_and_no_more(reply: dict[str, Any]) -> None:
    def strange(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
        liar.end(msg_id, **reply)

    async with lied_to(strange) as (kernels, _):
        result = await (await kernels.execute("1")).wait(5)
        again = await (await kernels.execute("2")).wait(5)

    assert result.status in ("ok", "error", "interrupted")
    assert again.status == result.status
    assert len(result.model_dump_json()) < 1024 * 1024


async def test_a_kernel_that_asks_for_input_all_the_same_is_interrupted() -> None:
    def asks(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
        liar.say("iopub", "execute_input", {"execution_count": 1}, msg_id)
        liar.say("stdin", "input_request", {"prompt": "name?"}, msg_id)

    async with lied_to(asks) as (kernels, liar):
        execution = await kernels.execute("input()")
        await until(lambda: execution.interrupt_asked)
        liar.say("iopub", "error", {"ename": "KeyboardInterrupt"}, execution.execution_id)
        liar.end(execution.execution_id, status="error")
        result = await execution.wait(5)

    assert (result.status, result.state) == ("interrupted", "kept")
    assert "input" in (result.reason or "")


async def test_a_cell_that_asks_for_input_as_the_link_ends_is_interrupted_over_the_next() -> None:
    def asks(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
        liar.say("iopub", "execute_input", {"execution_count": 1}, msg_id)
        liar.say("stdin", "input_request", {"prompt": "name?"}, msg_id)

    async with lied_to(asks) as (kernels, liar):
        liar.meanwhile["kernel.interrupt"] = lambda: None  # it takes its time to answer
        await kernels.execute("input()")
        await until(lambda: "kernel.interrupt" in liar.ops)
        await liar.relink(kernels)
        await until(lambda: liar.ops.count("kernel.interrupt") == 2)


async def test_lost_messages_are_told_and_do_not_leave_a_cell_running() -> None:
    def drops(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
        liar.say("iopub", "stream", {"name": "stdout", "text": "kept"}, msg_id)
        liar.event({"event": "dropped", "messages": 9, "bytes": 5000, "from_seq": 1, "to_seq": 9})

    async with lied_to(drops) as (kernels, _):
        result = await (await kernels.execute("1")).wait(5)

    assert (result.status, result.state) == ("lost", "kept")
    assert result.truncated_bytes == 5000
    assert "lost" in (result.reason or "")


@pytest.mark.parametrize("size", [-1, 2**70, "many", None])
async def test_sizes_of_what_was_dropped_are_not_believed_blindly(size: Any) -> None:
    def drops(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
        liar.event({"event": "dropped", "bytes": size})
        liar.end(msg_id)

    async with lied_to(drops) as (kernels, _):
        result = await (await kernels.execute("1")).wait(5)

    assert result.status == "ok"
    assert result.truncated_bytes == 0


async def test_a_supervisor_that_cannot_restart_a_kernel_leaves_it_dead() -> None:
    async with lied_to(is_silent) as (kernels, liar):
        liar.answers["kernel.restart"] = InfrastructureError("no")
        execution = await kernels.execute("1", timeout_s=0.1)
        result = await execution.wait(10)
        (info,) = kernels.infos

    assert (result.status, result.state) == ("died", "lost")
    assert info.state == "dead"


@pytest.mark.parametrize(
    "kernels",
    [
        None,
        {},
        [5],
        [{"kernel_id": "../x", "name": "python3", "epoch": 1, "alive": True, "last_seq": 0}],
        [{"kernel_id": "k-1", "name": "x\n", "epoch": 1, "alive": True, "last_seq": 0}],
        [{"kernel_id": "k-1", "name": "python3", "epoch": 0, "alive": True, "last_seq": 0}],
        [{"kernel_id": "k-1", "name": "python3", "epoch": 1, "alive": 1, "last_seq": 0}],
        [{"kernel_id": "k-1", "name": "python3", "epoch": 1, "alive": True, "last_seq": -1}],
        [{"kernel_id": "k-1", "name": "p", "epoch": 1, "alive": True, "last_seq": 0}] * 999,
    ],
)
async def test_a_list_of_kernels_that_makes_no_sense_is_refused(kernels: Any) -> None:
    liar = Liar(ends)
    liar.answers["kernel.list"] = {"kernels": kernels}
    async with scripted(liar.serve) as machine, anyio.create_task_group() as tasks:
        client = Kernels(SESSION, Limits(), MemoryJournal())
        tasks.start_soon(client.run)
        link = await machine.connect()
        with pytest.raises(ProtocolError):
            await client.attach(link)
        tasks.cancel_scope.cancel()


async def test_a_broken_message_costs_the_link_and_not_the_controller() -> None:
    def breaks(liar: Liar, _kind: str, _msg_id: str, _content: Content) -> None:
        liar.raw(b"\xff\x00")

    liar = Liar(breaks)
    async with scripted(liar.serve) as machine, anyio.create_task_group() as tasks:
        client = Kernels(SESSION, Limits(), MemoryJournal())
        tasks.start_soon(client.run)
        link = await machine.connect()
        await client.attach(link)
        await client.execute("1")
        with anyio.fail_after(5):
            await link.wait_closed()
        tasks.cancel_scope.cancel()


async def test_death_before_the_first_answer_is_told() -> None:
    async with lied_to(ends) as (kernels, liar):
        liar._asked = lambda _header, _content: None  # type: ignore[method-assign]
        liar.event({"event": "exited", "exit_code": None, "signal": 9, "oom": None})
        with pytest.raises(SandboxError, match="SIGKILL"):
            await kernels.start()


async def test_the_engine_is_asked_when_nobody_inside_knows_the_cause() -> None:
    async def oom_probe() -> bool | None:
        return True

    def dies(liar: Liar, _kind: str, _msg_id: str, _content: Content) -> None:
        liar.event({"event": "exited", "exit_code": None, "signal": 9, "oom": None})

    liar = Liar(dies)
    async with scripted(liar.serve) as machine, anyio.create_task_group() as tasks:
        client = Kernels(SESSION, Limits(), MemoryJournal(), oom_probe=oom_probe)
        tasks.start_soon(client.run)
        await client.attach(await machine.connect())
        result = await (await client.execute("1")).wait(5)
        tasks.cancel_scope.cancel()

    assert result.status == "died"
    assert "out of memory" in (result.reason or "")


async def test_output_of_threads_after_the_cell_is_kept_with_the_cell() -> None:
    async with lied_to(ends) as (kernels, liar):
        execution = await kernels.execute("start_thread()")
        await execution.wait(5)
        version = execution.version
        liar.say("iopub", "stream", {"name": "stdout", "text": "late"}, execution.execution_id)
        with anyio.fail_after(5):
            await execution.changed(version)
        result = kernels.execution(execution.execution_id).snapshot()

    assert result.status == "ok"
    assert result.outputs[0]["text"] == "late"


async def test_a_later_cell_updates_what_an_earlier_one_has_shown() -> None:
    def shows(liar: Liar, _kind: str, msg_id: str, content: Content) -> None:
        shown = {"data": {"text/plain": content["code"]}, "transient": {"display_id": "d"}}
        kind = "display_data" if content["code"] == "first" else "update_display_data"
        liar.say("iopub", kind, shown, msg_id)
        liar.end(msg_id)

    async with lied_to(shows) as (kernels, _):
        first = await kernels.execute("first")
        await first.wait(5)
        await (await kernels.execute("second")).wait(5)
        result = first.snapshot()

    assert result.outputs[0]["data"] == {"text/plain": "second"}


async def test_an_interrupt_waits_until_the_cell_has_begun() -> None:
    async with lied_to(is_silent) as (kernels, liar):
        execution = await kernels.execute("1")
        await until(lambda: liar.is_busy)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execution.cancel)
            await anyio.sleep(0.1)
            assert "kernel.interrupt" not in liar.ops
            liar.say("iopub", "execute_input", {"execution_count": 1}, execution.execution_id)

        assert "kernel.interrupt" in liar.ops


async def test_a_cell_whose_interrupt_took_its_reply_is_over_when_the_kernel_is_free() -> None:
    def says_little(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
        liar.say("iopub", "execute_input", {"execution_count": 1}, msg_id)

    async with lied_to(says_little) as (kernels, liar):
        execution = await kernels.execute("1 + 1")
        await execution.executing.wait()
        liar.say("iopub", "status", {"execution_state": "idle"}, execution.execution_id)
        await execution.cancel()
        result = await execution.wait(5)

    assert (result.status, result.state) == ("interrupted", "kept")
    assert result.reason == "The cell was interrupted on request."


async def test_a_cell_that_ends_while_its_kernel_is_being_restarted_keeps_no_state() -> None:
    async with lied_to(is_silent) as (kernels, liar):
        execution = await kernels.execute("1", timeout_s=0.1)

        def ends_after_all() -> None:
            liar.end(execution.execution_id)
            liar.is_busy, liar.epoch = False, 2

        liar.meanwhile["kernel.restart"] = ends_after_all
        result = await execution.wait(10)

    assert (result.status, result.state) == ("timeout", "restarted")


async def test_a_supervisor_that_lists_other_kernels_each_time_is_not_believed_for_ever() -> None:
    liar = Liar(ends)
    async with scripted(liar.serve) as machine, anyio.create_task_group() as tasks:
        client = Kernels(SESSION, Limits(), MemoryJournal())
        tasks.start_soon(client.run)
        for turn in range(4):
            listed = {"name": "python3", "epoch": 1, "alive": True, "last_seq": 0}
            names = [{"kernel_id": f"k-{turn}x{n}", **listed} for n in range(200)]
            liar.answers["kernel.list"] = {"kernels": names}
            link = await machine.connect()
            await client.attach(link)
            await link.aclose()

        assert len(client.infos) <= 256
        tasks.cancel_scope.cancel()


@pytest.fixture
def heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that is not linear, as far as anybody knows: it never ends for a certain text."""
    add = OutputCollector.add

    def trapped(self: OutputCollector, kind: str, content: Content) -> bool:
        if content.get("text") == "trap":
            while True:
                pass
        return add(self, kind, content)

    monkeypatch.setattr(OutputCollector, "add", trapped)


@pytest.mark.usefixtures("heavy")
async def test_a_message_that_takes_too_long_is_set_aside_and_its_cell_ends_and_says_so() -> None:
    def traps(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
        liar.say("iopub", "stream", {"name": "stdout", "text": "before\n"}, msg_id)
        liar.say("iopub", "stream", {"name": "stdout", "text": "trap"}, msg_id)
        liar.say("iopub", "stream", {"name": "stdout", "text": "after\n"}, msg_id)
        liar.end(msg_id)

    async with lied_to(traps) as (kernels, liar):
        result = await (await kernels.execute("1")).wait(10)
        await until(lambda: liar.acknowledged >= liar.seq - 3)  # at once, not with the end

    assert result.status == "ok"
    assert result.reason is not None
    assert "set aside" in result.reason
    assert [output["text"] for output in result.outputs] == ["after\n"]
    assert result.truncated_bytes >= len("before\ntrap")


@pytest.mark.usefixtures("heavy")
async def test_a_kernel_that_goes_on_so_ends_its_session() -> None:
    reasons: list[str] = []

    def traps(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
        for _ in range(MAX_OVERRUNS):
            liar.say("iopub", "stream", {"name": "stdout", "text": "trap"}, msg_id)
        liar.end(msg_id)

    async with lied_to(traps, Overruns(SESSION, reasons.append)) as (kernels, _):
        await (await kernels.execute("1")).wait(20)
        await until(lambda: bool(reasons))


async def test_a_message_that_cannot_be_read_in_time_is_lost_output_of_its_cell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decode = wire.decode_json

    def trapped(data: bytes) -> dict[str, Any]:
        while b"trap" in data:
            pass
        return decode(data)

    def traps(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
        monkeypatch.setattr(wire, "decode_json", trapped)
        liar.say("iopub", "stream", {"name": "stdout", "text": "trap"}, msg_id)
        liar.end(msg_id)

    async with lied_to(traps) as (kernels, _):
        result = await (await kernels.execute("1")).wait(10)

    assert result.status == "ok"
    assert result.reason is not None
    assert "too long to read" in result.reason
    assert result.truncated_bytes > 0


async def test_a_reply_full_of_values_is_not_kept() -> None:
    def fills(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
        liar.end(msg_id, more=[[] for _ in range(30_000)])

    async with lied_to(fills) as (kernels, _):
        kept = []
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(3):
            kept.append(await kernels.execute("1"))
            assert (await kept[-1].wait(10)).status == "ok"
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert after - before < 3_000_000


async def test_what_was_acknowledged_is_said_again_over_the_next_link() -> None:
    """It may have been lost with the link; a log inside that is not told long enough is full."""

    def ends(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
        liar.end(msg_id)

    async with lied_to(ends) as (kernels, liar):
        await (await kernels.execute("1")).wait(5)
        await until(lambda: liar.acknowledged == liar.seq)
        last, liar.acknowledged = liar.acknowledged, 0
        await liar.relink(kernels)
        await until(lambda: liar.acknowledged == last == liar.seq)
