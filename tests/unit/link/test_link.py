"""The link over a pipe in memory: both ends, or one end and hostile bytes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from sandbox.errors import (
    FileError,
    InfrastructureError,
    InvalidRequest,
    LinkLost,
    NotFound,
    ProtocolError,
    QuotaExceeded,
    SandboxError,
)
from sandbox.link import link as link_module
from sandbox.link import stream as stream_module
from sandbox.link import wire
from sandbox.link.link import Link, Stream
from sandbox.link.memory import MemoryStream, pipe

pytestmark = pytest.mark.anyio

HELLO = wire.encode(wire.HELLO, 0, wire.encode_json({"protocol": wire.PROTOCOL_VERSION}))


async def serve(stream: Stream) -> None:
    """What the answering end of these tests does."""
    match stream.request["op"]:
        case "echo":
            await stream.send_json({"said": stream.request["say"]})
        case "cat":
            async for message in stream:
                await stream.send(message.data, message.tag)
        case "flood":
            for _ in range(int(stream.request["count"])):
                await stream.send(bytes(100_000), int(stream.request.get("tag", wire.BYTES)))
        case "missing":
            raise NotFound("There is no such thing.")
        case "file":
            raise FileError("no_space", "The disk is full.")
        case "bug":
            raise KeyError("a bug")
        case "twice":
            await stream.send_json({})
            await stream.send_json({})
        case "text":
            await stream.send(b"text")
        case "nothing":
            pass
        case _:
            await asyncio.get_running_loop().create_future()


@asynccontextmanager
async def pair(
    on_open: Callable[[Stream], Awaitable[None]] = serve, **options: Any
) -> AsyncIterator[tuple[Link, Link]]:
    """Two running ends; afterwards both have ended and nothing is left over in them."""
    here, there = pipe()
    ours = Link(here, initiator=True, hello={"build": "ours"}, **options)
    theirs = Link(there, initiator=False, hello={"build": "theirs"}, on_open=on_open)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ours.run)
            tasks.start_soon(theirs.run)
            await ours.greeting()
            yield ours, theirs
            await ours.aclose()
    for end in (ours, theirs):
        assert end.is_closed
        assert (end._streams, end._serving, end._held) == ({}, {}, 0)  # pyright: ignore[reportPrivateUsage]


@asynccontextmanager
async def hostile() -> AsyncIterator[tuple[MemoryStream, Link]]:
    """One running end, and the other end of its pipe to say anything."""
    here, there = pipe()
    link = Link(here, initiator=True, hello={})
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.run)
            yield there, link
            await link.aclose()


async def fill(stream: Stream) -> None:
    """Send without end."""
    while True:
        await stream.send(bytes(100_000))


async def drain(stream: Stream) -> None:
    """Take all that comes."""
    async for _ in stream:
        pass


async def quiet() -> None:
    """Let everything that can run do so."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_the_ends_greet_each_other_in_any_order_of_asking() -> None:
    async with pair() as (ours, theirs):
        assert (await ours.greeting())["build"] == "theirs"
        assert (await theirs.greeting())["build"] == "ours"
    assert (await ours.greeting())["build"] == "theirs"  # known once, known for good


async def test_a_call_has_one_answer() -> None:
    async with pair() as (ours, _):
        assert await ours.call("echo", say="hé\0llo") == {"said": "hé\0llo"}


async def test_calls_at_once_get_their_own_answers() -> None:
    async with pair() as (ours, _):
        answers = await asyncio.gather(*(ours.call("echo", say=n) for n in range(200)))
    assert [answer["said"] for answer in answers] == list(range(200))


async def test_ended_streams_are_forgotten_by_both_ends() -> None:
    async with pair() as (ours, theirs):
        for _ in range(3 * wire.MAX_STREAMS):
            await ours.call("echo", say=1)
        await quiet()
        for end in (ours, theirs):
            assert not end._streams  # pyright: ignore[reportPrivateUsage]
            assert not end._serving  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("tag", [wire.JSON, wire.BYTES, wire.STDERR, wire.KERNEL])
@pytest.mark.parametrize("size", [0, 1, wire.PIECE_SIZE, wire.PIECE_SIZE + 1, 1_000_000])
async def test_messages_of_any_tag_and_size_come_back(tag: int, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    async with pair() as (ours, _):
        stream = ours.open("cat")
        await stream.send(data, tag)
        stream.end()
        back = [message async for message in stream]
    assert {message.tag for message in back} == {tag}
    assert b"".join(message.data for message in back) == data
    if tag in (wire.JSON, wire.KERNEL):
        assert len(back) == 1


@pytest.mark.parametrize(
    ("op", "error", "text"),
    [
        ("missing", NotFound, "There is no such thing."),
        ("file", FileError, "The disk is full."),
        ("bug", InfrastructureError, "KeyError"),
        ("twice", ProtocolError, "more than one"),
        ("text", ProtocolError, "JSON"),
        ("nothing", ProtocolError, "ended"),
    ],
)
async def test_what_goes_wrong_at_the_other_end_is_raised_here(
    op: str, error: type[SandboxError], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair() as (ours, _):
        with pytest.raises(error, match=text):
            await ours.call(op)
        assert await ours.call("echo", say="still here") == {"said": "still here"}
    assert ("a bug" in caplog.text) == (op == "bug")


async def test_a_file_error_keeps_its_reason() -> None:
    async with pair() as (ours, _):
        with pytest.raises(FileError) as caught:
            await ours.call("file")
    assert caught.value.reason == "no_space"


async def test_a_request_too_long_for_a_frame_is_the_callers_mistake() -> None:
    async with pair() as (ours, _):
        with pytest.raises(InvalidRequest):
            ours.open("echo", say="x" * wire.MAX_PAYLOAD)
        assert await ours.call("echo", say=1) == {"said": 1}


async def test_a_request_with_a_lone_surrogate_is_the_callers_mistake() -> None:
    async with pair() as (ours, _):
        with pytest.raises(InvalidRequest):
            ours.open("echo", say="a\ud800")
        assert await ours.call("echo", say=1) == {"said": 1}


async def test_an_error_whose_text_has_a_lone_surrogate_is_told_nevertheless() -> None:
    async def fail(_stream: Stream) -> None:
        raise NotFound("There is no \udcff.")

    async with pair(fail) as (ours, _):
        with pytest.raises(NotFound, match=r"There is no \\udcff"):
            await ours.call("x")


async def test_more_streams_than_there_may_be_are_refused_here() -> None:
    async with pair() as (ours, _):
        streams = [ours.open("wait") for _ in range(wire.MAX_STREAMS)]
        with pytest.raises(QuotaExceeded):
            ours.open("wait")
        streams[0].reset()
        ours.open("wait")


async def test_giving_a_stream_up_cancels_what_serves_it() -> None:
    ended: list[str] = []

    async def wait(stream: Stream) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(stream.request["op"])

    async with pair(wait) as (ours, theirs):
        first, _ = ours.open("first"), ours.open("second")
        await quiet()
        first.reset()
        await quiet()
        assert ended == ["first"]
        assert len(theirs._serving) == 1  # pyright: ignore[reportPrivateUsage]
    assert ended == ["first", "second"]  # the link's end does it too


async def test_after_giving_a_stream_up_nothing_can_be_done_with_it() -> None:
    async with pair() as (ours, _):
        stream = ours.open("cat")
        stream.reset()
        stream.reset()
        with pytest.raises(SandboxError):
            await stream.receive()
        with pytest.raises(SandboxError):
            await stream.send(b"x")
        stream.end()


async def test_a_sender_waits_until_the_other_end_takes() -> None:
    gate = asyncio.Event()

    async def slow(stream: Stream) -> None:
        await gate.wait()
        async for _ in stream:
            pass

    async with pair(slow) as (ours, _):
        stream = ours.open("slow")
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(100):
                await stream.send(bytes(50_000))
                sent += 50_000
            stream.end()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send())
            await quiet()
            assert 0 < sent <= wire.INITIAL_CREDIT + stream_module.SEND_HIGH_WATER + 100_000
            gate.set()
        assert sent == 5_000_000
        assert await stream.receive() is None


async def test_a_sender_that_waits_is_told_of_a_reset() -> None:
    async def refuse(stream: Stream) -> None:
        await stream.receive()
        raise QuotaExceeded("Enough.")

    async with pair(refuse) as (ours, _):
        stream = ours.open("x")
        with pytest.raises(QuotaExceeded):
            await fill(stream)


async def test_a_flood_nobody_takes_does_not_hold_up_other_calls() -> None:
    async with pair() as (ours, _):
        floods = [ours.open("flood", count=1000) for _ in range(20)]
        for number in range(100):
            assert await ours.call("echo", say=number) == {"said": number}
        taken = 0
        async for message in floods[0]:
            taken += len(message.data)
        assert taken == 100_000_000


async def test_a_lost_link_ends_everything_that_waits() -> None:
    async with pair() as (ours, theirs):
        receiving = ours.open("wait")
        sending = ours.open("wait")

        async def ends(work: Awaitable[Any]) -> None:
            with pytest.raises(LinkLost):
                await work

        async with asyncio.TaskGroup() as tasks:
            for work in (
                receiving.receive(),
                fill(sending),
                ours.call("wait"),
                receiving.wait_reset(),
            ):
                tasks.create_task(ends(work))
            await quiet()
            await theirs.aclose()
        await ours.wait_closed()
        assert ours.error is None
        with pytest.raises(LinkLost):
            ours.open("echo")
        with pytest.raises(LinkLost):
            await sending.send(b"x")


async def test_what_came_before_the_end_can_still_be_taken() -> None:
    async with pair() as (ours, theirs):
        stream = ours.open("echo", say="last words")
        await quiet()
        await theirs.aclose()
        await ours.wait_closed()
        assert await stream.receive_json() == {"said": "last words"}
        assert await stream.receive() is None


async def test_closing_twice_or_before_running_does_no_harm() -> None:
    here, there = pipe()
    link = Link(here, initiator=True, hello={})
    await link.aclose()
    await link.aclose()
    with anyio.fail_after(5):
        await link.run()
        with pytest.raises(LinkLost):
            await link.greeting()
    assert await there.read() == b""


async def test_a_cancelled_link_closes_its_byte_stream_and_fails_its_streams() -> None:
    here, there = pipe()
    link = Link(here, initiator=True, hello={})
    task = asyncio.create_task(link.run())
    stream = link.open("x")
    await quiet()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(LinkLost):
        await stream.receive()
    with anyio.fail_after(5):
        while await there.read():
            pass
    assert link.is_closed


async def test_an_end_that_never_greets_is_given_up() -> None:
    async with hostile() as (_, link):
        with pytest.raises(LinkLost):
            await link.greeting(timeout_s=0.01)


async def test_a_greeting_that_breaks_the_protocol_is_what_the_waiter_hears() -> None:
    async with hostile() as (io, link):
        await io.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(ProtocolError):
            await link.greeting()


async def test_an_end_that_falls_silent_is_given_up_and_one_that_answers_is_not() -> None:
    async with pair(ping_interval_s=0.01) as (ours, _):
        await asyncio.sleep(0.2)
        assert not ours.is_closed
    here, there = pipe()
    link = Link(here, initiator=True, hello={}, ping_interval_s=0.01)
    await there.write(HELLO)
    with anyio.fail_after(5):
        await link.run()
    assert isinstance(link.error, LinkLost)


BROKEN = {
    "garbage": b"\xff" * 100,
    "an unknown tag": wire.encode(wire.DATA, 1, b"x", 9),
    "a tag that changes": wire.encode(wire.DATA, 1, b"x", wire.KERNEL | wire.MORE)
    + wire.encode(wire.DATA, 1, b"x", wire.JSON),
    "bytes within a message": wire.encode(wire.DATA, 1, b"x", wire.KERNEL | wire.MORE)
    + wire.encode(wire.DATA, 1, b"x", wire.BYTES),
    "an end within a message": wire.encode(wire.DATA, 1, b"x", wire.JSON | wire.MORE)
    + wire.encode(wire.END, 1),
}


@pytest.mark.parametrize("rule", BROKEN)
async def test_a_broken_rule_ends_the_link_and_is_what_waiters_hear(rule: str) -> None:
    async with hostile() as (io, link):
        stream = link.open("x")
        await io.write(HELLO + BROKEN[rule])
        with pytest.raises(ProtocolError):
            await drain(stream)
        await link.wait_closed()
        with pytest.raises(ProtocolError):
            link.open("y")
    assert isinstance(link.error, ProtocolError)


async def send_long(io: MemoryStream, stream: int, tag: int, size: int) -> None:
    """A long message in hostile hands: sent without a look at the credit that comes back."""
    piece = bytes(wire.PIECE_SIZE)
    for sent in range(0, size, len(piece)):
        more = wire.MORE if sent + len(piece) < size else 0
        with contextlib.suppress(BrokenPipeError):
            await io.write(wire.encode(wire.DATA, stream, piece, tag | more))
        await quiet()


@pytest.mark.parametrize("tag", [wire.JSON, wire.KERNEL])
async def test_a_message_may_not_be_longer_than_its_tag_allows(tag: int) -> None:
    async with hostile() as (io, link):
        link.open("x")
        await io.write(HELLO)
        await send_long(io, 1, tag, link_module.MAX_MESSAGE[tag] + 2 * wire.PIECE_SIZE)
        await link.wait_closed()
    assert isinstance(link.error, ProtocolError)


async def test_long_messages_on_many_streams_together_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_module, "MAX_HELD", 4 * 1024 * 1024)
    async with hostile() as (io, link):
        await io.write(HELLO)
        streams = [link.open("x") for _ in range(5)]
        for stream in streams:
            await send_long(io, stream._number, wire.KERNEL, 900_000)  # pyright: ignore[reportPrivateUsage]
        await link.wait_closed()
    assert isinstance(link.error, ProtocolError)


async def test_a_message_counts_until_it_is_taken_and_its_stream_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_module, "MAX_HELD", 2 * 1024 * 1024)
    async with pair() as (ours, _):
        for round_ in range(8):
            stream = ours.open("cat")
            await stream.send(bytes(900_000), wire.KERNEL)
            stream.end()
            if round_ % 2:
                message = await stream.receive()
                assert message is not None
                assert len(message.data) == 900_000
            else:
                await quiet()
                stream.reset()
        stream = ours.open("cat")
        await stream.send(bytes(900_000), wire.KERNEL)
        await stream.receive()
        assert ours._held == 0  # pyright: ignore[reportPrivateUsage]
        assert ours.error is None


async def test_whole_messages_that_nobody_takes_hold_back_the_credit() -> None:
    async with pair() as (ours, theirs):
        stream = ours.open("flood", count=200, tag=wire.KERNEL)
        await quiet()
        held = ours._held  # pyright: ignore[reportPrivateUsage]
        assert held <= 2 * wire.INITIAL_CREDIT
        count = 0
        async for _ in stream:
            count += 1
        assert count == 200
        assert theirs.error is None


async def test_an_end_that_opens_streams_nobody_asked_for_is_refused() -> None:
    async with hostile() as (io, link):
        await io.write(HELLO + wire.encode(wire.OPEN, 2, b'{"op":"x"}'))
        received = b""
        while b"not_permitted" not in received:
            received += await io.read()
        assert not link.is_closed


async def test_text_from_the_other_end_is_printable_and_short() -> None:
    async with hostile() as (io, link):
        reason = wire.encode_json({"code": "not_found", "message": "\x1b[31m" + "x" * 9000})
        stream = link.open("x")
        await io.write(HELLO + wire.encode(wire.RESET, 1, reason))
        with pytest.raises(NotFound) as caught:
            await stream.receive()
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 2100


async def test_a_failure_of_the_link_itself_ends_the_link_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(MemoryStream):
        async def read(self) -> bytes:
            raise ZeroDivisionError("a bug below")

    here, _ = pipe()
    link = Link(
        Broken(here._incoming, here._outgoing),  # pyright: ignore[reportPrivateUsage]
        initiator=True,
        hello={},
    )
    with anyio.fail_after(5):
        await link.run()
    assert isinstance(link.error, InfrastructureError)
    assert "a bug below" in caplog.text


@pytest.mark.timed  # who rests does so by the clock, also while the machine does other things
async def test_a_link_that_brings_much_work_leaves_time_for_others() -> None:
    """Frames that cost time and carry nothing: whoever sends them gets half of the loop at most."""
    async with hostile() as (io, _):
        await io.write(HELLO)
        flood = wire.encode(wire.PONG) * 30_000

        async def attack() -> None:
            while True:
                await io.write(flood)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(attack)
            turns, until = 0, time.thread_time() + 0.6
            while time.thread_time() < until:
                await asyncio.sleep(0.001)
                turns += 1
            tasks.cancel_scope.cancel()
    assert turns > 9  # five, where nothing rests


async def test_a_flood_that_nobody_takes_leaves_memory_flat() -> None:
    async with pair() as (ours, _):
        gc.collect()
        tracemalloc.start()
        try:
            streams = [ours.open("flood", count=1000) for _ in range(8)]
            await quiet()
            await asyncio.sleep(0.1)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < len(streams) * 4 * wire.INITIAL_CREDIT


async def test_an_end_that_is_known_to_be_stopped_may_be_silent_for_as_long_as_that_lasts() -> None:
    here, there = pipe()
    link = Link(here, initiator=True, hello={}, ping_interval_s=0.01)
    link.is_still = True
    await there.write(HELLO)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(link.run())
        await link.greeting()
        await asyncio.sleep(0.2)
        assert not link.is_closed
        link.is_still = False
        with anyio.fail_after(5):
            await link.wait_closed()
    assert isinstance(link.error, LinkLost)


async def test_what_goes_on_is_what_has_not_ended_and_follows_no_log() -> None:
    async with hostile() as (io, link):
        await io.write(HELLO)
        await link.greeting()
        assert link.going_on == []
        link.open("kernel.attach")
        assert link.going_on == []
        reading = link.open("file.read")
        assert link.going_on == ["file.read"]
        reading.reset()
        assert link.going_on == []
