"""Attacks by a hostile supervisor: what comes out of a container may not hurt the controller.

The other end of the link is played byte by byte, so these need no engine. ``Hostile`` is the byte
stream that an exec of the bridge would give; a test feeds it frames that no honest supervisor
sends.
"""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import pytest

from sandbox.errors import InfrastructureError, LinkLost, NotFound, ProtocolError, SandboxError
from sandbox.link import wire
from sandbox.link.link import MAX_MESSAGE, Link, Stream
from sandbox.link.mux import Mux

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
HELLO = wire.encode(wire.HELLO, payload=b'{"protocol": 1, "build": "hostile"}')
FIRST = 1
"""The first stream that the controller opens."""


class Hostile:
    """A byte stream whose far end says what a test tells it to, and reads what it likes."""

    def __init__(self, *, reads: bool = True) -> None:
        self.closed = False
        self.heard = bytearray()
        self._reads = reads
        self._said: asyncio.Queue[bytes] = asyncio.Queue(16)
        self._gone = asyncio.Event()

    async def say(self, data: bytes) -> None:
        """Put bytes on the stream; waits like a full pipe, gives up when the link is closed."""
        put = asyncio.ensure_future(self._said.put(data))
        gone = asyncio.ensure_future(self._gone.wait())
        await asyncio.wait((put, gone), return_when=asyncio.FIRST_COMPLETED)
        put.cancel()
        gone.cancel()

    async def read(self) -> bytes:
        """As ``ByteStream`` asks."""
        return b"" if self.closed else await self._said.get()

    async def write(self, data: bytes) -> None:
        """As ``ByteStream`` asks; never returns when this end does not read."""
        if not self._reads:
            await self._gone.wait()
        self.heard += data

    async def close(self) -> None:
        """As ``ByteStream`` asks."""
        self.closed = True
        self._gone.set()
        if not self._said.full():
            self._said.put_nowait(b"")  # for a reader that waits


@asynccontextmanager
async def hostile_link(*, reads: bool = True) -> AsyncIterator[tuple[Hostile, Link]]:
    """A controller's link to a hostile supervisor, within bounds of time."""
    io = Hostile(reads=reads)
    link = Link(io, initiator=True, hello={})
    with anyio.fail_after(20):
        running = asyncio.create_task(link.run())
        try:
            yield io, link
        finally:
            await link.aclose()
            await running


@contextmanager
def memory_growth_at_most(limit_bytes: int) -> Iterator[None]:
    """Fail when the block leaves, or needed at its worst, more memory than this."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before <= limit_bytes, f"{peak - before} bytes"


async def ends_for_a_broken_rule(link: Link) -> None:
    """The link closes by itself and says that the other end broke the protocol."""
    await link.wait_closed()
    with anyio.fail_after(5):
        while link.error is None:  # set within the turn that closes the link
            await asyncio.sleep(0)
    assert isinstance(link.error, ProtocolError)


def data(stream: int, payload: bytes, tag: int = wire.BYTES, *, more: bool = False) -> bytes:
    """One DATA frame."""
    return wire.encode(wire.DATA, stream, payload, tag | (wire.MORE if more else 0))


def test_no_length_can_announce_more_than_a_frame() -> None:
    """Invariant 3: a length of 4 GB has no place in a header; what looks like one is not waited
    for."""
    mux = Mux(initiator=True, hello={})
    with pytest.raises(ProtocolError):
        list(mux.receive(b"\xff\xff\xff\xff" * 4 + bytes(wire.MAX_PAYLOAD)))
    waiting = Mux(initiator=True, hello={})
    with memory_growth_at_most(4 * wire.MAX_PAYLOAD):
        frame = wire.HEADER.pack(wire.HELLO, 0, 0, wire.MAX_PAYLOAD) + b" " * (wire.MAX_PAYLOAD - 1)
        for at in range(0, len(frame), 4096):
            assert not list(waiting.receive(frame[at : at + 4096]))


@pytest.mark.parametrize("kind", [8, 9, 0x7F, 0xFF])
async def test_an_unknown_frame_type_ends_the_link(kind: int) -> None:
    """Invariant 3: what is not in the protocol is not guessed at."""
    async with hostile_link() as (io, link):
        await io.say(HELLO + wire.HEADER.pack(kind, 0, 0, 0))
        await ends_for_a_broken_rule(link)
        assert io.closed


@pytest.mark.parametrize(
    ("rule", "frames"),
    [
        ("data before HELLO", data(FIRST, b"x")),
        ("an unknown protocol", wire.encode(wire.HELLO, payload=b'{"protocol": 99}')),
        ("a HELLO that is no object", wire.encode(wire.HELLO, payload=b"[]")),
        ("a HELLO that is no JSON", wire.encode(wire.HELLO, payload=b"\xff\xfe\x00")),
        ("two HELLOs", HELLO + HELLO),
        ("HELLO on a stream", wire.encode(wire.HELLO, FIRST, b'{"protocol": 1}')),
        ("a tag where none belongs", HELLO + wire.HEADER.pack(wire.END, 3, FIRST, 0)),
        ("END with a payload", HELLO + wire.encode(wire.END, FIRST, b"x")),
        ("END twice", HELLO + wire.encode(wire.END, FIRST) * 2),
        ("data after END", HELLO + wire.encode(wire.END, FIRST) + data(FIRST, b"x")),
        ("a stream never opened", HELLO + data(4001, b"x")),
        ("stream 0", HELLO + data(0, b"x")),
        ("opening a stream of ours", HELLO + wire.encode(wire.OPEN, 9, b"{}")),
        ("opening a stream twice", HELLO + wire.encode(wire.OPEN, 2, b"{}") * 2),
        ("an unknown kind of data", HELLO + data(FIRST, b"x", 0x55)),
        ("CREDIT of a wrong size", HELLO + wire.encode(wire.CREDIT, FIRST, b"x")),
        ("credit never used", HELLO + wire.encode(wire.CREDIT, FIRST, b"\xff\xff\xff\xff")),
        ("a long ping", HELLO + wire.encode(wire.PING, payload=bytes(65))),
        ("a RESET that is no JSON", HELLO + wire.encode(wire.RESET, FIRST, b"\x1b[2J")),
        ("a message that changes its kind",
         HELLO + data(FIRST, b"{", wire.JSON, more=True) + data(FIRST, b"}", wire.KERNEL)),
    ],
)  # fmt: skip
async def test_a_broken_rule_ends_the_link_and_every_waiter(rule: str, frames: bytes) -> None:
    """Invariant 3: a supervisor that breaks the protocol loses its link; nobody waits for ever."""
    async with hostile_link() as (io, link):
        stream = link.open("info")
        await io.say(frames)
        await ends_for_a_broken_rule(link)
        try:
            while await stream.receive() is not None:
                pass
        except SandboxError:
            return
        assert "END" in rule, "only a stream that had ended in good order ends without an error"


async def test_overdrawn_credit_ends_the_link() -> None:
    """Invariant 3: a sender that ignores credit cannot fill the controller's memory."""
    async with hostile_link() as (io, link):
        link.open("process.run")
        await io.say(HELLO)
        with memory_growth_at_most(4 * MIB):
            for _ in range(200):
                await io.say(data(FIRST, bytes(60_000)))
            await ends_for_a_broken_rule(link)


async def test_a_flood_of_opened_streams_costs_no_memory() -> None:
    """Invariant 3: the supervisor may open streams; twenty thousand of them are refused."""
    async with hostile_link() as (io, link):
        await io.say(HELLO)
        await link.greeting()
        with memory_growth_at_most(2 * MIB):
            for start in range(2, 40_000, 1000):
                frames = (wire.encode(wire.OPEN, n, b"{}") for n in range(start, start + 1000, 2))
                await io.say(b"".join(frames))
                io.heard.clear()
        assert not link.is_closed


async def test_answers_nobody_reads_are_bounded() -> None:
    """Invariant 3: a flood that makes the controller answer ends the link when it is not read."""
    async with hostile_link(reads=False) as (io, link):
        with memory_growth_at_most(8 * MIB):
            await io.say(HELLO)
            for _ in range(400):
                await io.say(wire.encode(wire.PING, payload=bytes(64)) * 100)
            await ends_for_a_broken_rule(link)


@pytest.mark.parametrize("tag", [wire.JSON, wire.KERNEL])
async def test_a_message_without_end_is_cut_off(tag: int) -> None:
    """Invariant 3: pieces of one endless message are not collected past its bound."""
    limit = MAX_MESSAGE[tag]
    async with hostile_link() as (io, link):
        link.open("kernel.attach")
        await io.say(HELLO)
        with memory_growth_at_most(3 * limit + 4 * MIB):
            for _ in range(limit // 60_000 + 50):
                await io.say(data(FIRST, bytes(60_000), tag, more=True))
            await ends_for_a_broken_rule(link)


async def test_many_half_messages_are_bounded_together() -> None:
    """Invariant 3: messages under assembly share one bound over all streams of a link."""
    async with hostile_link() as (io, link):
        streams = [link.open("kernel.attach") for _ in range(12)]
        await io.say(HELLO)
        with memory_growth_at_most(160 * MIB):
            for number in range(FIRST, FIRST + 2 * len(streams), 2):
                for _ in range(15 * MIB // 65_000):
                    await io.say(data(number, bytes(65_000), wire.KERNEL, more=True))
            await ends_for_a_broken_rule(link)


async def test_whole_messages_nobody_takes_are_bounded() -> None:
    """Invariant 3: long messages, each complete, do not pile up before a reader that is busy."""
    message = [data(FIRST, bytes(65_000), wire.KERNEL, more=True) for _ in range(4)]
    message.append(data(FIRST, b"", wire.KERNEL))
    async with hostile_link() as (io, link):
        link.open("kernel.attach")
        await io.say(HELLO)
        with memory_growth_at_most(24 * MIB):
            for _ in range(300):
                for frame in message:
                    await io.say(frame)
                if link.is_closed:
                    break


async def test_pieces_of_nothing_do_not_pile_up() -> None:
    """Invariant 3: empty data costs credit too, so a flood of it is as bounded as any other."""
    async with hostile_link() as (io, link):
        link.open("process.run")
        await io.say(HELLO)
        with memory_growth_at_most(16 * MIB):
            for _ in range(200):
                await io.say(data(FIRST, b"") * 1000)
            await ends_for_a_broken_rule(link)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"[" * 60_000,
        b'{"a":' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"a": 1' + b"0" * 60_000 + b"}",
        b'"text"',
        b"null",
        b"",
        b"\x00" * 100,
    ],
)
async def test_hostile_json_is_an_error_of_the_protocol(text: bytes) -> None:
    """Invariant 3: deep, huge, torn or wrong JSON never escapes as another exception."""
    async with hostile_link() as (io, link):
        stream = link.open("info")
        await io.say(HELLO)
        pieces = [text[at : at + 60_000] for at in range(0, len(text), 60_000)] or [b""]
        for number, piece in enumerate(pieces, 1):
            await io.say(data(FIRST, piece, wire.JSON, more=number < len(pieces)))
        with pytest.raises(ProtocolError):
            await stream.receive_json()


async def test_a_stalled_hello_is_given_up() -> None:
    """Invariant 3: every wait is bounded; a supervisor that never speaks costs seconds, not a
    session."""
    async with hostile_link() as (io, link):
        await io.say(HELLO[:9])
        with pytest.raises(LinkLost):
            await link.greeting(timeout_s=0.2)


async def test_a_far_end_that_goes_away_ends_every_call() -> None:
    """Invariant 8: calls on a lost link end as lost; they do not hang and do not look answered."""
    async with hostile_link() as (io, link):
        await io.say(HELLO)
        streams = [link.open("info") for _ in range(5)]

        async def wait(stream: Stream) -> type[Exception]:
            try:
                await stream.receive()
            except SandboxError as exc:
                return type(exc)
            return AssertionError

        waiters = [asyncio.create_task(wait(stream)) for stream in streams]
        await io.say(b"")
        assert await asyncio.gather(*waiters) == [LinkLost] * 5


async def test_refusals_cannot_carry_escape_sequences_or_forge_errors() -> None:
    """Invariant 3: a RESET's text is printable and short; its code picks no class of its own."""
    hostile = {
        "not_found": NotFound,
        "policy_not_enforced": InfrastructureError,
        "__class__": InfrastructureError,
        "\x1b]0;owned\x07": InfrastructureError,
    }
    async with hostile_link() as (io, link):
        await io.say(HELLO)
        for code, kind in hostile.items():
            stream = link.open("info")
            number = FIRST + 2 * list(hostile).index(code)
            message = "\x1b[2J\x1b]8;;file:///etc/passwd\x07\u202e" + "A" * 50_000
            payload = json.dumps({"code": code, "message": message}).encode()
            await io.say(wire.encode(wire.RESET, number, payload[: wire.MAX_PAYLOAD]))
            with pytest.raises(SandboxError) as caught:
                await stream.receive()
            assert type(caught.value) is kind
            text = str(caught.value)
            assert len(text) < 10_000
            assert all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.timed
async def test_a_flood_on_one_link_leaves_the_loop_to_others() -> None:
    """Invariant 3: one session's flood does not stop the controller from serving another."""
    async with hostile_link() as (flooding, link), hostile_link() as (honest, other):
        stream = link.open("process.run")
        await flooding.say(HELLO)
        await honest.say(HELLO)
        stopped = asyncio.Event()

        async def flood() -> None:
            while not stopped.is_set():
                await flooding.say(wire.encode(wire.CREDIT, FIRST, bytes(4)) * 5000)

        async def drain() -> None:
            async for _ in stream:
                pass

        flooder, drainer = asyncio.create_task(flood()), asyncio.create_task(drain())
        loop = asyncio.get_running_loop()
        slowest_s = 0.0
        for turn in range(30):
            asked = other.open("info")
            start = loop.time()
            await honest.say(data(FIRST + 2 * turn, b"{}", wire.JSON))
            await asked.receive_json()
            slowest_s = max(slowest_s, loop.time() - start)
        stopped.set()
        drainer.cancel()
        await asyncio.wait((flooder, drainer), timeout=5)
        assert slowest_s < 2


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x01",
        b"\xff",
        b"\x02" + b"\x00\x00\x00\x01a",
        b"\x01" + b"\xff\xff\xff\xff",
        b"\x01" + b"\x00\x00\x00\x01ab",
        b"\xff" + b"\x00\x00\x00\x00" * 254,
    ],
)
def test_parts_that_do_not_add_up_are_refused(message: bytes) -> None:
    """Invariant 3: counts and lengths within a kernel message are checked against what came."""
    with pytest.raises(ProtocolError):
        wire.unpack_parts(message)
