"""What a kernel says, for any number of readers: whole, bounded, and without secrets."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence

import anyio
import pytest

from sandbox.kernels.events import KERNEL_BYTES, SESSION_BYTES, KernelEvents, LoggedMessage
from sandbox.kernels.execution import Execution
from sandbox.kernels.kernels import DEFAULT_KERNEL_ID
from sandbox.kernels.messages import KernelMessage
from sandbox.outputs.eventlog import Budget
from sandbox.outputs.redaction import Redactor

from ...support.waiting import until
from .conftest import Bench
from .liars import Content, Liar, lied_to

pytestmark = pytest.mark.anyio

SECRET = "correct-horse-battery"
LINES = "".join(f"line {n}\n" for n in range(20))
TWENTY = "\n".join(f"print('line', {n})\nsleep(0.01)" for n in range(20))
MIB = 1024 * 1024


@pytest.fixture
def kept_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is kept every fifth of a second."""
    monkeypatch.setattr("sandbox.kernels.journaling.KEEP_INTERVAL_S", 0.2)


async def read_all(execution: Execution, pause_s: float = 0) -> tuple[list[LoggedMessage], int]:
    """Everything that belongs to an execution, and how much was missed."""
    found: list[LoggedMessage] = []
    missed = 0
    with anyio.fail_after(20):
        async for got in execution.follow():
            found += got.entries
            missed += got.missed
            await anyio.sleep(pause_s)
    return found, missed


def text_of(messages: Sequence[LoggedMessage]) -> str:
    return "".join(m.content["text"] for m in messages if m.msg_type == "stream")


async def test_two_readers_of_one_execution_see_every_line(bench: Bench) -> None:
    found: list[tuple[list[LoggedMessage], int]] = []

    async with bench.controller() as kernels:
        execution = await kernels.execute(TWENTY)

        async def follow(pause_s: float) -> None:
            found.append(await read_all(execution, pause_s))

        async with anyio.create_task_group() as tasks:
            for pause_s in (0, 0.05):
                tasks.start_soon(follow, pause_s)
        late = await read_all(execution)

    for messages, missed in (*found, late):
        assert text_of(messages) == LINES
        assert missed == 0
        assert [m.seq for m in messages] == sorted({m.seq for m in messages})
        assert {m.parent_id for m in messages} == {execution.execution_id}


async def test_a_reader_goes_on_where_it_was(bench: Bench) -> None:
    async with bench.controller() as kernels:
        execution = await kernels.execute(TWENTY)
        await execution.wait(10)
        messages, _ = await read_all(execution)
        rest: list[LoggedMessage] = []
        async for got in execution.follow(messages[9].seq):
            rest += got.entries

    assert rest == messages[10:]


async def test_a_cell_that_waits_can_be_followed_and_one_that_never_ran_has_said_nothing(
    bench: Bench,
) -> None:
    async with bench.controller() as kernels:
        first = await kernels.execute("sleep(0.1)")
        second = await kernels.execute("print('second')")
        third = await kernels.execute("print('third')")
        await third.cancel()

        assert text_of((await read_all(second))[0]) == "second\n"
        assert await read_all(third) == ([], 0)
        assert text_of((await read_all(first))[0]) == ""


async def test_following_ends_with_the_execution_however_that_ends(bench: Bench) -> None:
    async with bench.controller() as kernels:
        dies = await kernels.execute("print('a')\ndie('oom')")
        assert text_of((await read_all(dies))[0]) == "a\n"
        await kernels.restart()
        hangs = await kernels.execute("print('b')\nhang()", timeout_s=0.1)
        assert text_of((await read_all(hangs))[0]) == "b\n"
        stopped = await kernels.execute("print('c')\nsleep(30)")
        await until(lambda: stopped.was_seen)
        events = kernels.events()
        await kernels.stop()
        assert text_of((await read_all(stopped))[0]) == "c\n"
        with anyio.fail_after(5):
            async for _ in events.follow():
                pass


async def test_a_slow_reader_loses_its_place_is_told_and_slows_nobody() -> None:
    def floods(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
        for n in range(3 * KERNEL_BYTES // MIB):
            liar.say("iopub", "stream", {"name": "stdout", "text": f"{n}".ljust(MIB)}, msg_id)
        liar.end(msg_id)

    async with lied_to(floods) as (kernels, liar):
        execution = await kernels.execute("1")
        slow = execution.follow()
        fast = await read_all(execution)
        result = await execution.wait(10)
        with anyio.fail_after(10):
            first = await anext(slow)
            await slow.aclose()

    assert result.status == "ok"
    assert fast[1] == 0
    assert len(text_of(fast[0])) == 3 * KERNEL_BYTES
    assert first.missed > 0
    assert first.entries[0].seq == execution.record.begun_seq + first.missed + 1
    assert first.entries[-1].seq == liar.seq


async def test_lost_messages_are_told_to_those_who_follow() -> None:
    def drops(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
        liar.event({"event": "dropped", "messages": 9, "bytes": 5000, "from_seq": 1, "to_seq": 9})
        liar.end(msg_id)

    async with lied_to(drops) as (kernels, _):
        messages, _ = await read_all(await kernels.execute("1"))

    assert messages[0].msg_type == "dropped"
    assert messages[0].content["messages"] == 9


# --- comms and buffers


async def test_comms_and_their_buffers_arrive_whole() -> None:
    buffers = (bytes(range(256)) * 4096, b"", b"\xff\x00")

    def comms(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
        opened = {"comm_id": "c", "target_name": "jupyter.widget", "data": {"state": {"x": [1.5]}}}
        liar.say("iopub", "comm_open", opened, msg_id, metadata={"version": "2.1.0"})
        changed = {"comm_id": "c", "data": {"buffer_paths": [["a"], ["b"], ["c"]]}}
        liar.say("iopub", "comm_msg", changed, msg_id, buffers=buffers)
        liar.say("iopub", "comm_close", {"comm_id": "c", "data": {}}, msg_id)
        liar.end(msg_id)

    async with lied_to(comms) as (kernels, _):
        execution = await kernels.execute("slider")
        messages, _ = await read_all(execution)
        unasked = kernels.events(DEFAULT_KERNEL_ID).read().entries

    opened, changed, closed, *_ = messages
    assert [m.msg_type for m in (opened, changed, closed)] == [
        "comm_open",
        "comm_msg",
        "comm_close",
    ]
    assert opened.metadata_json == b'{"version":"2.1.0"}'
    assert opened.content["data"]["state"] == {"x": [1.5]}
    assert changed.buffers == buffers
    assert opened.msg_id
    assert set(messages) <= set(unasked)


async def test_a_flood_of_comms_with_buffers_stays_within_its_bound() -> None:
    """256 MiB of buffers, of several kernels: nobody reads them, and nobody pays for them."""
    sent = 0

    def floods(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
        liar.say("iopub", "status", {"execution_state": "busy"}, msg_id)

    async with lied_to(floods) as (kernels, liar):
        execution = await kernels.execute("1")
        await until(lambda: execution.was_seen)
        events = kernels.events()
        tracemalloc.start()
        for _ in range(64):
            for _ in range(4):
                content = {"comm_id": "c", "data": {}}
                liar.say(
                    "iopub", "comm_msg", content, execution.execution_id, buffers=(bytes(MIB),)
                )
                sent += MIB
            await until(lambda: events.log.end == liar.seq)
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        liar.end(execution.execution_id)
        result = await execution.wait(10)

    assert result.status == "ok"
    assert events.log.size_bytes <= KERNEL_BYTES
    assert kept < 2 * KERNEL_BYTES < sent


def message(
    kind: str, content: Content, parent_id: str = "p", seq: int = 1, **more: object
) -> KernelMessage:
    return KernelMessage(seq, 1, "iopub", kind, parent_id, content, b"", **more)  # type: ignore[arg-type]


def test_the_kernels_of_a_session_share_a_bound() -> None:
    budget = Budget(SESSION_BYTES)
    kept = [KernelEvents(Redactor(), budget) for _ in range(8)]
    for seq in range(1, 20):
        for each in kept:
            said = message("comm_msg", {}, seq=seq, buffers=(bytes(MIB),))
            each.log.append(each.redacted(said), seq)

    assert sum(each.log.size_bytes for each in kept) <= SESSION_BYTES
    assert all(each.log.size_bytes <= KERNEL_BYTES for each in kept)
    assert all(each.read().missed for each in kept)
    assert min(each.log.size_bytes for each in kept) > 0


@pytest.mark.parametrize(
    "hostile",
    [
        {"content": {"deep": [[[]]] * 100_000}},
        {"content": b'{"x": 1e999}'},
        {"content": b"{"},
        {"content": b'{"x": "\\ud800"}'},
        {"content": {}, "metadata": b"[" * 9999},
        {"content": {}, "metadata": {"x": "y" * 100_000}},
        {"content": {}, "buffers": (b"",) * 240},
    ],
)
async def test_whatever_a_kernel_says_can_be_read_and_passed_on(
    hostile: dict[str, Content],
) -> None:
    def says(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
        liar.say("iopub", "comm_msg", parent=msg_id, **hostile)  # type: ignore[arg-type]
        liar.end(msg_id)

    async with lied_to(says) as (kernels, _):
        execution = await kernels.execute("1")
        assert (await execution.wait(10)).status == "ok"
        for logged in kernels.events().read().entries:
            json.dumps(json.loads(logged.content_json), ensure_ascii=False).encode()
            assert isinstance(logged.content, dict)
            assert isinstance(json.loads(logged.metadata_json), dict)


# --- secrets


def shown_of(*said: KernelMessage) -> list[LoggedMessage]:
    events = KernelEvents(Redactor({"KEY": SECRET}), Budget(SESSION_BYTES))
    for seq, each in enumerate(said, 1):
        events.log.append(events.redacted(each), seq)
    return [*events.read().entries]


def stream(text: str, parent_id: str = "p", name: str = "stdout") -> KernelMessage:
    return message("stream", {"name": name, "text": text}, parent_id)


IDLE = message("status", {"execution_state": "idle"})


@pytest.mark.parametrize(
    "said",
    [
        [stream(f"a {SECRET} b")],
        [stream(SECRET[:7]), stream(SECRET[7:])],
        [stream(char) for char in SECRET],
        [stream(SECRET[:7]), stream("x", "another"), stream(SECRET[7:])],
        [stream(SECRET[:7]), message("status", {"execution_state": "busy"}), stream(SECRET[7:])],
        [message("comm_msg", {"data": {SECRET: [SECRET]}}, metadata={"x": SECRET})],
        [message("comm_msg", {}, buffers=(b"\xff" + SECRET.encode(), b"x"))],
        [message(SECRET, {}, SECRET, msg_id=SECRET)],
        [message("display_data", {"data": {"text/html": f"<b>{SECRET}</b>"}})],
    ],
)
def test_no_secret_is_in_the_log(said: list[KernelMessage]) -> None:
    shown = shown_of(*said, IDLE)
    text = text_of([m for m in shown if m.parent_id == "p"])

    assert SECRET not in text
    for each in shown:
        parts = (each.msg_type, each.msg_id, each.parent_id, *each.buffers)
        everything = repr((*parts, each.content_json, each.metadata_json))
        assert SECRET not in everything
    if said[0].msg_type == "stream":
        assert "[secret KEY]" in text


def test_text_that_only_looked_like_a_secret_is_shown_in_its_place() -> None:
    begin = SECRET[:6]
    shown = shown_of(
        stream(f"1 {begin}"),
        stream("2 ", name="stderr"),
        message("display_data", {"data": {}}),
        stream(f"3 {begin}"),
        IDLE,
    )

    assert text_of(shown) == f"1 {begin}2 3 {begin}"
    assert [m.seq for m in shown] == sorted(m.seq for m in shown)
    assert shown[-1].msg_type == "status"


def test_buffers_keep_their_length_without_a_secret() -> None:
    (shown,) = shown_of(message("comm_msg", {}, buffers=(b"12" + SECRET.encode() + b"34", b"5")))

    assert shown.buffers == (b"12" + b"*" * len(SECRET) + b"34", b"5")


# --- over controllers


@pytest.mark.usefixtures("kept_often")
async def test_a_reader_goes_on_with_the_next_controller(bench: Bench) -> None:
    """Its position is the supervisor's number; what only the journal has, it is told to have
    missed."""
    async with bench.controller() as kernels:
        execution = await kernels.execute(TWENTY + "\nsleep(0.6)\nprint('end')")
        seen: list[LoggedMessage] = []
        async for got in execution.follow():
            seen += got.entries
            if len(seen) > 5:
                break
        await until(lambda: bool(bench.journal.progressed))
        kept = bench.journal.progressed[-1][2]
    async with bench.controller() as kernels:
        execution = kernels.execution(execution.execution_id)
        rest: list[LoggedMessage] = []
        missed = 0
        async for got in execution.follow(seen[-1].seq):
            rest += got.entries
            missed += got.missed
        result = await execution.wait(10)

    assert result.outputs[0]["text"] == LINES + "end\n"
    assert missed == kept - seen[-1].seq
    assert [m.seq for m in rest] == list(range(kept + 1, rest[-1].seq + 1))
    assert text_of(rest).endswith("end\n")


@pytest.mark.usefixtures("kept_often")
async def test_what_the_journal_has_not_taken_is_not_acknowledged(bench: Bench) -> None:
    """A journal that fails holds no reader up, and the supervisor keeps what it has not taken."""
    async with bench.controller() as kernels:
        await (await kernels.execute("1")).wait(10)
        kernel = bench.supervisor.kernels[DEFAULT_KERNEL_ID]
        await until(lambda: kernel.info()["first_seq"] > 1)
        bench.journal.is_full = True
        execution = await kernels.execute(TWENTY)
        messages, _ = await read_all(execution)
        await anyio.sleep(0.5)
        held = kernel.info()["first_seq"]
        bench.journal.is_full = False
        await until(lambda: kernel.info()["first_seq"] > messages[-1].seq)

    assert text_of(messages) == LINES
    assert held <= execution.record.begun_seq + 1
    assert bench.journal.results[execution.execution_id].outputs[0]["text"] == LINES
