"""A supervisor and kernels that lie."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from sandbox import wire
from sandbox.errors import InfrastructureError, ProtocolError, SandboxError
from sandbox.kernels import Kernels
from sandbox.policy.models import Limits
from sandbox.stream import Stream

from ..machines import MemoryJournal, scripted, until
from .conftest import GRACE_S, SESSION

pytestmark = pytest.mark.anyio

Content = Mapping[str, Any]
Script = Callable[["Liar", str, str, Content], None]


class Liar:
    """Answers as a supervisor with one well-behaved kernel, but for what the test's script does."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.answers: dict[str, Any] = {
            "kernel.list": {"kernels": []},
            "kernel.start": {"kernel_id": "k-default", "name": "python3", "pid": 5, "epoch": 1},
            "kernel.interrupt": {},
            "kernel.restart": {"pid": 6, "epoch": 2},
            "info": {"kernelspecs": {}},
        }
        self.ops: list[str] = []
        self.epoch = 1
        self.seq = 0
        self._stream: Stream | None = None
        self._sent: asyncio.Queue[bytes] = asyncio.Queue()

    def raw(self, data: bytes) -> None:
        self._sent.put_nowait(data)

    def say(
        self, channel: str, kind: str, content: Any, parent: str, *, seq: int = 0, epoch: int = 0
    ) -> None:
        self.seq = seq or self.seq + 1
        envelope = {"seq": self.seq, "epoch": epoch or self.epoch, "channel": channel}
        header, parents = {"msg_type": kind}, {"msg_id": parent}
        parts = [b"", *(json.dumps(part).encode() for part in (header, parents, {}, content))]
        self.raw(wire.pack_parts([json.dumps(envelope).encode(), *parts]))

    def event(self, event: Content, *, epoch: int = 0) -> None:
        self.seq += 1
        envelope = {"seq": self.seq, "epoch": epoch or self.epoch, "channel": "event"}
        self.raw(wire.pack_parts([json.dumps(part).encode() for part in (envelope, event)]))

    def end(self, msg_id: str, kind: str = "execute", **reply: Any) -> None:
        self.say("shell", f"{kind}_reply", {"status": "ok", "execution_count": 1, **reply}, msg_id)
        self.say("iopub", "status", {"execution_state": "idle"}, msg_id)

    async def serve(self, stream: Stream) -> None:
        op = str(stream.request["op"])
        self.ops.append(op)
        if op == "kernel.attach":
            await self._attached(stream)
        elif isinstance(self.answers.get(op), SandboxError):
            raise self.answers[op]
        elif op in self.answers:
            await stream.send_json(self.answers[op])
            stream.end()

    async def _attached(self, stream: Stream) -> None:
        async def tell() -> None:
            while True:
                await stream.send(await self._sent.get(), wire.KERNEL)

        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(tell())
            async for message in stream:
                if message.tag == wire.KERNEL:
                    _, _, header, _, _, content = wire.unpack_parts(message.data)
                    self._asked(json.loads(header), json.loads(content))
            telling.cancel()

    def _asked(self, header: Content, content: Content) -> None:
        kind, msg_id = str(header["msg_type"]), str(header["msg_id"])
        if kind == "kernel_info_request":
            self.end(msg_id, "kernel_info")
        else:
            self.script(self, kind, msg_id, content)


@asynccontextmanager
async def lied_to(script: Script) -> AsyncIterator[tuple[Kernels, Liar]]:
    liar = Liar(script)
    async with scripted(liar.serve) as machine, anyio.create_task_group() as tasks:
        kernels = Kernels(SESSION, Limits(), MemoryJournal(), grace_s=GRACE_S)
        tasks.start_soon(kernels.run)
        await kernels.attach(await machine.connect())
        yield kernels, liar
        tasks.cancel_scope.cancel()


def ends(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
    liar.end(msg_id)


def is_silent(_liar: Liar, _kind: str, _msg_id: str, _content: Content) -> None:
    pass


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
        (info,) = await kernels.list()

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
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execution.cancel)
            await anyio.sleep(0.1)
            assert "kernel.interrupt" not in liar.ops
            liar.say("iopub", "execute_input", {"execution_count": 1}, execution.execution_id)

        assert "kernel.interrupt" in liar.ops


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
