from __future__ import annotations

import asyncio
import json
from typing import Any

import anyio
import pytest

from sandbox.link import wire
from sandbox.supervisor.messagelog import MessageLog, is_stream, jupyter_parts, oversize, pieces
from sandbox.supervisor.zmtp import Incoming

pytestmark = pytest.mark.anyio


def make_log(limit_bytes: int = 10_000) -> tuple[MessageLog, list[str]]:
    calls: list[str] = []
    return MessageLog(lambda: calls.append("room"), limit_bytes), calls


async def read_all(log: MessageLog, after: int = 0) -> list[tuple[dict[str, Any], list[bytes]]]:
    log.finish()
    found: list[tuple[dict[str, Any], list[bytes]]] = []
    while (entry := await log.read(after)) is not None:
        after = entry[0]
        head, *parts = wire.unpack_parts(entry[1])
        found.append((json.loads(head), parts))
    return found


async def test_messages_are_numbered_and_read_from_where_the_reader_stopped() -> None:
    log, _ = make_log()
    for text in (b"one", b"two", b"three"):
        log.append(1, "iopub", [text])
    found = await read_all(log, after=1)
    assert [(head["seq"], parts) for head, parts in found] == [(2, [b"two"]), (3, [b"three"])]


async def test_a_reader_waits_for_what_is_not_there_yet() -> None:
    log, _ = make_log()
    with anyio.fail_after(5):
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(log.read(0))
            await asyncio.sleep(0)
            assert not reading.done()
            log.append(1, "shell", [b"late"])
    assert reading.result() is not None


async def test_what_can_wait_comes_with_what_follows_or_after_a_moment() -> None:
    log, _ = make_log()
    with anyio.fail_after(5):
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(log.read(0))
            await asyncio.sleep(0)
            log.append(1, "iopub", [b"begins"], can_wait=True)
            for _ in range(3):
                await asyncio.sleep(0)
            assert not reading.done()
            log.append(1, "iopub", [b"ends"])
            assert (await reading or (0,))[0] == 1
            assert (await log.read(1) or (0,))[0] == 2
            reading = tasks.create_task(log.read(2))
            await asyncio.sleep(0)
            log.append(1, "iopub", [b"begins"], can_wait=True)
            assert (await reading or (0,))[0] == 3


async def test_what_was_acknowledged_is_forgotten() -> None:
    log, _ = make_log()
    for _ in range(5):
        log.append(1, "iopub", [b"x"])
    log.acknowledge(3)
    assert (log.first_seq, log.last_seq) == (4, 5)
    assert [head["seq"] for head, _ in await read_all(log)] == [4, 5]


async def test_a_full_log_with_a_reader_drops_nothing_and_says_when_there_is_room() -> None:
    log, calls = make_log()
    log.open()
    while not log.is_full:
        log.append(1, "iopub", [bytes(1000)], stream=True)
    kept = log.last_seq
    assert log.first_seq == 1
    log.acknowledge(1)
    assert calls == []
    log.acknowledge(kept)
    assert calls == ["room"]


async def test_a_reader_that_leaves_lets_the_kernel_go_on() -> None:
    log, calls = make_log()
    log.open()
    while not log.is_full:
        log.append(1, "iopub", [bytes(1000)], stream=True)
    log.close()
    assert calls == ["room"]
    assert not log.is_full


async def test_without_a_reader_the_oldest_stream_outputs_go_first() -> None:
    log, _ = make_log()
    log.append(1, "iopub", [b"status"])
    for _ in range(100):
        log.append(1, "iopub", [bytes(1000)], stream=True)
    log.append(1, "shell", [b"reply"])
    found = await read_all(log)
    assert [parts for head, parts in found if head["channel"] == "shell"] == [[b"reply"]]
    assert found[0][1] == [b"status"]
    [gap] = [(head, json.loads(parts[0])) for head, parts in found if head["channel"] == "event"]
    dropped = gap[1]
    kept = sum(head["channel"] == "iopub" for head, _ in found) - 1
    assert dropped["event"] == "dropped"
    assert dropped["from_seq"] == 2
    assert dropped["to_seq"] == gap[0]["seq"] == 1 + dropped["messages"]
    assert dropped["messages"] + kept == 100
    assert dropped["bytes"] > 1000 * dropped["messages"]


async def test_without_a_reader_anything_goes_when_there_are_no_stream_outputs() -> None:
    log, _ = make_log()
    for number in range(1000):
        log.append(1, "iopub", [b"%d" % number])
    found = await read_all(log)
    assert found[-1][1] == [b"999"]
    event = json.loads(found[0][1][0])
    assert event["messages"] == event["to_seq"] == found[0][0]["seq"]
    assert event["messages"] + len(found) - 1 == 1000
    assert len(found) < 50


async def test_a_log_stays_within_its_bound_for_any_mixture() -> None:
    log, _ = make_log(limit_bytes=50_000)
    for number in range(3000):
        log.append(1, "iopub", [bytes(number * 7919 % 3000)], stream=number % 3 == 0)
    size = sum(len(part) for _, parts in await read_all(log) for part in parts)
    assert size < 50_000


def stream_output(text: str) -> list[bytes]:
    header = {"msg_id": "m", "msg_type": "stream"}
    content = {"name": "stdout", "text": text}
    raw = (json.dumps(part, ensure_ascii=False).encode() for part in (header, {}, {}, content))
    return [b"", *raw]


@pytest.mark.parametrize("text", ["x" * 1_000_000, "é漢🙂\n" * 100_000, "\x1b[0m" * 200_000])
async def test_a_long_stream_output_is_cut_between_characters(text: str) -> None:
    cut = [json.loads(piece[4]) for piece in pieces(stream_output(text))]
    assert "".join(content["text"] for content in cut) == text
    assert all(len(content["text"].encode()) <= 128 * 1024 for content in cut)
    assert {content["name"] for content in cut} == {"stdout"}


async def test_a_stream_output_that_cannot_be_cut_stays_whole() -> None:
    parts = [*stream_output("")[:4], b"{" * 300_000]
    assert list(pieces(parts)) == [parts]


async def test_stream_outputs_are_told_by_their_header() -> None:
    assert is_stream(stream_output("x"))
    assert not is_stream([b"", b'{"msg_type": "status"}', b"{}", b"{}", b'{"msg_type": "stream"}'])


async def test_what_is_not_a_jupyter_message_is_none() -> None:
    assert jupyter_parts([b"topic", b"<IDS|MSG>", b"", b"h", b"p", b"m", b"c"]) == [
        *(b"", b"h", b"p", b"m", b"c")
    ]
    assert jupyter_parts([b"topic", b"no delimiter"]) is None
    assert jupyter_parts([b"<IDS|MSG>", b"too", b"few"]) is None


async def test_a_message_that_was_too_large_leaves_its_type_and_parent() -> None:
    frames = [b"topic", b"<IDS|MSG>", b"", b'{"msg_type": "display_data"}', b'{"msg_id": "p"}']
    event = oversize(Incoming(frames, 12_345, complete=False))
    assert event == {
        **{"event": "oversize", "msg_type": "display_data", "bytes": 12_345, "parent_id": "p"}
    }
    assert oversize(Incoming([], 1, complete=False))["msg_type"] == ""
