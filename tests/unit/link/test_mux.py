"""The multiplexer: whatever the order and the cutting, and whatever the other end says."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections import defaultdict
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.errors import ProtocolError
from sandbox.link import wire
from sandbox.link.mux import Mux

HELLO = wire.encode(wire.HELLO, 0, wire.encode_json({"protocol": wire.PROTOCOL_VERSION}))
OPEN = wire.encode_json({"op": "x"})


def pair() -> tuple[Mux, Mux]:
    """The two ends of a link that have greeted each other."""
    ours, theirs = Mux(initiator=True, hello={}), Mux(initiator=False, hello={})
    assert [type(event) for event in theirs.receive(ours.pull())] == [wire.Hello]
    assert [type(event) for event in ours.receive(theirs.pull())] == [wire.Hello]
    return ours, theirs


def greeted() -> Mux:
    mux = Mux(initiator=True, hello={})
    list(mux.receive(HELLO))
    mux.pull()
    return mux


def take(mux: Mux, data: bytes) -> list[wire.Event]:
    return list(mux.receive(data))


class Side:
    """One end that notes what comes, and consumes it at once or later."""

    def __init__(self, mux: Mux) -> None:
        self.mux = mux
        self.got: dict[int, bytearray] = defaultdict(bytearray)
        self.sent: dict[int, bytearray] = defaultdict(bytearray)
        self.ended: set[int] = set()
        self.was_reset: set[int] = set()
        self.owed: list[tuple[int, int]] = []

    def receive(self, data: bytes) -> None:
        for event in self.mux.receive(data):
            match event:
                case wire.Received(number):
                    assert number not in self.ended
                    assert number not in self.was_reset
                    self.got[number] += event.data
                    self.owed.append((number, event.cost))
                case wire.Ended(number):
                    self.ended.add(number)
                case wire.WasReset(number):
                    self.was_reset.add(number)
                case _:
                    pass

    def consume(self) -> None:
        for number, cost in self.owed:
            self.mux.consumed(number, cost)
        self.owed.clear()


def move(source: Side, target: Side, chunks: Iterable[int], size: int) -> bool:
    data = source.mux.pull(size)
    moved = bool(data)
    for chunk in chunks:
        if not data:
            break
        target.receive(data[:chunk])
        data = data[chunk:]
    target.receive(data)
    return moved


step = st.tuples(
    st.booleans(),
    st.sampled_from(["open", "send", "send", "send", "end", "reset", "move", "move", "consume"]),
    st.integers(0, 5),
    st.integers(0, 200_000),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(step, max_size=60), st.integers(0, 2**32))
def test_every_stream_delivers_its_bytes_once_and_in_order(
    steps: list[tuple[bool, str, int, int]], seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311  # repeatable, not secret
    first, second = pair()
    sides = Side(first), Side(second)
    streams: list[int] = []
    ended: set[tuple[int, int]] = set()
    reset: set[int] = set()
    for who, what, which, size in steps:
        side, other = (sides[0], sides[1]) if who else (sides[1], sides[0])
        number = streams[which % len(streams)] if streams else 0
        match what:
            case "open":
                streams.append(side.mux.open({"op": "x"}))
                while move(side, other, [1, 7], 1000):
                    pass
            case "send" if number and side.mux.is_open(number):
                if (id(side), number) not in ended:
                    data = chance.randbytes(size)
                    side.sent[number] += data
                    side.mux.send(number, data)
            case "end" if number:
                ended.add((id(side), number))
                side.mux.end(number)
            case "reset" if number:
                reset.add(number)
                side.mux.reset(number)
            case "move":
                chunks = [chance.randrange(1, 70_000) for _ in range(chance.randrange(6))]
                move(side, other, chunks, 1 + size)
            case "consume":
                side.consume()
            case _:
                pass
    while True:
        moved = move(sides[0], sides[1], [1, 3, 8], 50_000)
        moved = move(sides[1], sides[0], [2, 9], 300_000) or moved
        for side in sides:
            side.consume()
        if not moved and not any(side.mux.has_output for side in sides):
            break
    for here, there in (sides, sides[::-1]):
        for number in streams:
            if number in reset:
                assert here.sent[number].startswith(there.got[number])
            else:
                assert there.got[number] == here.sent[number]
                assert (number in there.ended) == ((id(here), number) in ended)
                over = {(id(here), number), (id(there), number)} <= ended
                assert here.mux.is_open(number) != over


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=40))
def test_what_nobody_takes_stays_within_the_credit(sizes: list[int]) -> None:
    ours, theirs = pair()
    number = theirs_number = ours.open({"op": "x"})
    for size in sizes:
        ours.send(number, bytes(size))
    received = 0
    while data := ours.pull():
        events = [event for event in theirs.receive(data) if isinstance(event, wire.Received)]
        received += sum(event.cost for event in events)
    assert received <= wire.INITIAL_CREDIT
    if sum(sizes) + len(sizes) * 128 < wire.INITIAL_CREDIT:
        assert ours.queued(number) == 0
    elif ours.queued(number):
        assert received > wire.INITIAL_CREDIT - wire.PIECE_SIZE - wire.FRAME_COST
        theirs.consumed(theirs_number, wire.CREDIT_BATCH)
        take(ours, theirs.pull())
        assert ours.has_output


@pytest.mark.parametrize("floods", [1, 10, 255])
def test_among_flooding_streams_a_small_one_comes_within_one_turn(floods: int) -> None:
    ours, theirs = pair()
    for _ in range(floods):
        ours.send(ours.open({"op": "flood"}), bytes(1_000_000))
    while ours.has_output and (data := ours.pull(1)):
        kinds = [type(event) for event in theirs.receive(data)]
        if wire.Received in kinds:
            break
    small = ours.open({"op": "small"})
    ours.send(small, b"small")
    frames = 0
    while True:
        events = [e for e in theirs.receive(ours.pull(1)) if isinstance(e, wire.Received)]
        frames += len(events)
        if events and events[0].stream == small:
            break
    assert frames <= floods + 1


def test_a_stream_that_gets_no_credit_does_not_hold_up_the_others() -> None:
    ours, theirs = pair()
    stuck, free = ours.open({"op": "x"}), ours.open({"op": "x"})
    ours.send(stuck, bytes(1_000_000))
    while data := ours.pull():
        take(theirs, data)
    ours.send(free, b"free")
    assert [event.data for event in take(theirs, ours.pull()) if isinstance(event, wire.Received)]
    ours.ping(b"alive")
    assert theirs.pull() == b""
    take(theirs, ours.pull())
    assert wire.Ponged(b"alive") in take(ours, theirs.pull())


def test_the_credit_is_used_up_by_whole_pieces() -> None:
    assert wire.INITIAL_CREDIT % (wire.PIECE_SIZE + wire.FRAME_COST) == 0


def test_both_ends_may_reset_the_same_stream_at_once() -> None:
    ours, theirs = pair()
    number = ours.open({"op": "x"})
    take(theirs, ours.pull())
    ours.reset(number, "one")
    theirs.reset(number, "two")
    assert take(theirs, ours.pull()) == []
    assert take(ours, theirs.pull()) == []
    assert not ours.is_open(number)
    assert ours.take_over() == [number]
    assert ours.take_over() == []


@pytest.mark.parametrize(
    "late",
    [
        wire.encode(wire.DATA, 1, b"late"),
        wire.encode(wire.CREDIT, 1, b"\0\0\0\1"),
        wire.encode(wire.END, 1),
        wire.encode(wire.RESET, 1, b"{}"),
    ],
)
def test_frames_on_their_way_when_a_stream_was_reset_are_ignored(late: bytes) -> None:
    mux = greeted()
    mux.reset(mux.open({"op": "x"}))
    assert take(mux, late) == []


def test_a_reset_drops_what_was_queued_and_says_so_in_front_of_other_data() -> None:
    ours, theirs = pair()
    number, other = ours.open({"op": "x"}), ours.open({"op": "x"})
    take(theirs, ours.pull())
    ours.send(number, bytes(200_000))
    ours.send(other, b"y")
    ours.reset(number, "cancelled", "enough")
    events = take(theirs, ours.pull())
    assert events == [
        wire.WasReset(number, "cancelled", "enough"),
        wire.Received(other, wire.BYTES, more=False, data=b"y"),
    ]


def test_nothing_can_follow_our_own_end() -> None:
    ours, theirs = pair()
    number = ours.open({"op": "x"})
    ours.send(number, b"a")
    ours.end(number)
    ours.end(number)
    ours.send(number, b"b")
    kinds = [type(event) for event in take(theirs, ours.pull())]
    assert kinds == [wire.Opened, wire.Received, wire.Ended]
    theirs.send(number, b"still")
    theirs.end(number)
    kinds = [type(event) for event in take(ours, theirs.pull())]
    assert kinds == [wire.Received, wire.Ended]
    assert not ours.is_open(number)
    assert not theirs.is_open(number)
    assert (ours.take_over(), theirs.take_over()) == ([number], [number])


def test_events_that_were_not_taken_come_with_the_next_bytes() -> None:
    mux = greeted()
    number = mux.open({"op": "x"})
    frames = [wire.encode(wire.DATA, number, bytes([value])) for value in range(4)]
    mux.receive(frames[0])  # never iterated
    events = mux.receive(frames[1] + frames[2])
    assert next(events) == wire.Received(number, 0, more=False, data=b"\0")
    events.close()  # type: ignore[attr-defined]
    got = [event.data for event in mux.receive(frames[3]) if isinstance(event, wire.Received)]
    assert got == [b"\1", b"\2", b"\3"]


def test_no_more_streams_are_opened_than_the_other_end_takes() -> None:
    ours, theirs = pair()
    for _ in range(wire.MAX_STREAMS):
        ours.open({"op": "x"})
    with pytest.raises(OverflowError):
        ours.open({"op": "x"})
    take(theirs, ours.pull())
    extra = wire.encode(wire.OPEN, 2 * wire.MAX_STREAMS + 1, OPEN)
    assert take(theirs, extra) == []
    refusal = theirs.pull()
    assert refusal[0] == wire.RESET
    assert b"quota_exceeded" in refusal


BROKEN = {
    "no HELLO first": [wire.encode(wire.PING)],
    "a second HELLO": [HELLO, HELLO],
    "another protocol": [wire.encode(wire.HELLO, 0, b'{"protocol":2}')],
    "a HELLO that is no object": [wire.encode(wire.HELLO, 0, b"1")],
    "a HELLO on a stream": [wire.encode(wire.HELLO, 1, b'{"protocol":1}')],
    "an unknown type": [HELLO, wire.encode(8)],
    "a tag where there is none": [HELLO, wire.encode(wire.PING, 0, b"", 1)],
    "a ping on a stream": [HELLO, wire.encode(wire.PING, 1)],
    "a ping that carries much": [HELLO, wire.encode(wire.PING, 0, bytes(65))],
    "our own kind of number": [HELLO, wire.encode(wire.OPEN, 1, OPEN)],
    "stream 0": [HELLO, wire.encode(wire.OPEN, 0, OPEN)],
    "a number twice": [HELLO, wire.encode(wire.OPEN, 2, OPEN), wire.encode(wire.OPEN, 2, OPEN)],
    "a number backwards": [HELLO, wire.encode(wire.OPEN, 4, OPEN), wire.encode(wire.OPEN, 2, OPEN)],
    "data of stream 0": [HELLO, wire.encode(wire.DATA, 0, b"x")],
    "data of none of ours": [HELLO, wire.encode(wire.DATA, 3, b"x")],
    "data of none of theirs": [HELLO, wire.encode(wire.DATA, 2, b"x")],
    "an end with a payload": [HELLO, wire.encode(wire.END, 1, b"x")],
    "an end twice": [HELLO, wire.encode(wire.END, 1), wire.encode(wire.END, 1)],
    "data after the end": [HELLO, wire.encode(wire.END, 1), wire.encode(wire.DATA, 1)],
    "a credit of no length": [HELLO, wire.encode(wire.CREDIT, 1)],
    "credit for nothing": [HELLO, wire.encode(wire.CREDIT, 1, b"\0\0\0\1")],
    "a reset that is no object": [HELLO, wire.encode(wire.RESET, 1, b"[]")],
    "an overdraft": [HELLO, *[wire.encode(wire.DATA, 1, bytes(65535))] * 4],
    "an overdraft in crumbs": [HELLO, *[wire.encode(wire.DATA, 1)] * 4097],
    "pings nobody reads": [
        HELLO,
        *[wire.encode(wire.PING, 0, bytes(64))] * (wire.MAX_PENDING_ANSWERS // 72 + 1),
    ],
}


@pytest.mark.parametrize("rule", BROKEN)
def test_whoever_breaks_a_rule_is_told_apart(rule: str) -> None:
    mux = Mux(initiator=True, hello={})
    mux.open({"op": "x"})
    *fine, last = BROKEN[rule]
    for frame in fine:
        take(mux, frame)
    with pytest.raises(ProtocolError):
        take(mux, last)


def test_streams_opened_only_to_be_refused_end_the_link_before_they_fill_memory() -> None:
    mux = greeted()
    with pytest.raises(ProtocolError):  # noqa: PT012  # which of them it is does not matter
        for number in range(2, 200_000, 2):
            for event in mux.receive(wire.encode(wire.OPEN, number, OPEN)):
                assert isinstance(event, wire.Opened)
                mux.reset(number, "not_permitted", "no")


def valid_frames() -> st.SearchStrategy[bytes]:
    payload = st.one_of(
        st.binary(max_size=80),
        st.just(OPEN),
        st.just(b'{"protocol":1}'),
        st.just(b"\0\0\1\0"),
        st.just(b'{"code":"x","message":"y"}'),
    )
    return st.builds(
        wire.encode,
        st.integers(0, 8),
        st.integers(0, 6) | st.integers(0, 2**32 - 1),
        payload,
        st.sampled_from([0, 0, 0, 1, 2, 3, 0x80, 0x83]),
    )


def feed(data: bytes, cut: int) -> None:
    """Feed a multiplexer with open streams; only a broken protocol may come of it."""
    mux = Mux(initiator=True, hello={})
    for _ in range(2):
        mux.send(mux.open({"op": "x"}), bytes(100_000))
    try:
        for start in range(0, len(data), cut):
            for event in mux.receive(data[start : start + cut]):
                if isinstance(event, wire.Received):
                    mux.consumed(event.stream, event.cost)
            mux.pull()
            mux.take_over()
    except ProtocolError:
        pass


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=2000), st.integers(1, 2000), st.booleans())
def test_random_bytes_do_nothing_but_break_the_protocol(data: bytes, cut: int, hello: bool) -> None:
    feed(HELLO + data if hello else data, cut)


@settings(max_examples=400, deadline=None)
@given(st.lists(valid_frames(), max_size=30), st.integers(1, 200), st.data())
def test_frames_in_any_order_and_damaged_do_nothing_but_break_the_protocol(
    frames: list[bytes], cut: int, choice: st.DataObject
) -> None:
    data = bytearray(HELLO + b"".join(frames))
    for _ in range(choice.draw(st.integers(0, 3))):
        data[choice.draw(st.integers(0, len(data) - 1))] = choice.draw(st.integers(0, 255))
    feed(bytes(data), cut)


def test_a_flood_of_ignored_and_answered_frames_leaves_memory_flat() -> None:
    mux = greeted()
    number = mux.open({"op": "x"})
    over = mux.open({"op": "x"})
    mux.reset(over)
    mux.pull()
    flood = b"".join(
        [
            wire.encode(wire.DATA, over, bytes(1000)),
            wire.encode(wire.DATA, number, bytes(1000)),
            wire.encode(wire.PING, 0, bytes(64)),
            wire.encode(wire.PONG, 0, bytes(64)),
            wire.encode(wire.CREDIT, number, bytes(4)),
            wire.encode(wire.RESET, over, b"{}"),
        ]
    )
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(3000):
            for event in mux.receive(flood):
                if isinstance(event, wire.Received):
                    mux.consumed(event.stream, event.cost)
            while mux.pull():
                pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 256 * 1024


def test_data_nobody_takes_costs_at_most_some_times_the_credit() -> None:
    """Even in the smallest pieces: what is kept is paid for."""
    mux = greeted()
    number = mux.open({"op": "x"})
    kept: list[wire.Event] = []
    crumb = wire.encode(wire.DATA, number, b"x")
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(wire.INITIAL_CREDIT // (1 + wire.FRAME_COST)):
            kept += mux.receive(crumb)
        with pytest.raises(ProtocolError):
            take(mux, crumb)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 4 * wire.INITIAL_CREDIT
