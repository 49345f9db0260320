"""Server-sent events: what runs is followed as it comes, by any number of readers."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import nullcontext
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from starlette.requests import Request
from starlette.types import Message

from sandbox.commands.command import Command, Piece
from sandbox.outputs.eventlog import Read
from sandbox.server.desk import Desk
from sandbox.server.http import eventstream
from sandbox.server.http.eventstream import Event, EventStream
from sandbox.server.http.following import FollowEndpoints

pytestmark = pytest.mark.anyio

STREAM = {"Accept": "text/event-stream"}


def events(text: str) -> list[dict[str, Any]]:
    """The events of a stream: kind, id and data."""
    found: list[dict[str, Any]] = []
    for block in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.splitlines() if not line.startswith(":")
        )
        if "event" in fields:
            found.append({**fields, "data": json.loads(fields["data"])})
    return found


async def ran(http: httpx.AsyncClient, session: str, code: str) -> str:
    answer = await http.post(f"{session}/executions", json={"code": code})
    assert answer.status_code == 201
    return answer.headers["location"]


async def test_an_execution_is_told_with_its_outputs_and_its_end(
    http: httpx.AsyncClient, session: str
) -> None:
    where = await ran(http, session, "print(1)\n1+1")
    told = events((await http.get(f"{where}/events")).text)
    assert [each["event"] for each in told] == ["output", "output", "end"]
    assert told[0]["data"] == {"type": "stream", "content": {"name": "stdout", "text": "1\n"}}
    assert told[-1]["data"] == (await http.get(where)).json()


async def test_who_accepts_events_gets_them_where_the_execution_is(
    http: httpx.AsyncClient, session: str
) -> None:
    where = await ran(http, session, "print(1)")
    answer = await http.get(where, headers=STREAM)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert events(answer.text) == events((await http.get(f"{where}/events")).text)


async def test_a_reader_goes_on_after_the_last_event_that_it_got(
    http: httpx.AsyncClient, session: str
) -> None:
    where = await ran(http, session, "print(1)\n1+1")
    whole = events((await http.get(f"{where}/events")).text)
    for number, each in enumerate(whole[:-1]):
        rest = await http.get(f"{where}/events", headers={"Last-Event-ID": each["id"]})
        assert events(rest.text) == whole[number + 1 :]
    over = await http.get(f"{where}/events", headers={"Last-Event-ID": whole[-1]["id"]})
    assert (over.status_code, over.content) == (204, b"")


async def test_two_readers_of_one_execution_get_the_same_while_it_runs(
    http: httpx.AsyncClient, session: str
) -> None:
    started = await http.post(f"{session}/executions?wait=0", json={"code": "sleep(30)"})
    assert started.status_code == 202
    where, told = started.headers["location"], list[list[dict[str, Any]]]()

    async def read() -> None:
        told.append(events((await http.get(f"{where}/events")).text))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(read)
            stopped = await http.delete(where)
            assert stopped.json()["status"] == "interrupted"
    assert told[0] == told[1]
    assert told[0][-1]["data"]["status"] == "interrupted"


async def test_a_command_is_told_with_what_it_writes(http: httpx.AsyncClient, session: str) -> None:
    answer = await http.post(f"{session}/commands", json={"command": "echo hi"})
    where = answer.headers["location"]
    told = events((await http.get(where, headers=STREAM)).text)
    assert told[0] == {"event": "output", "id": "3", "data": {"stream": "stdout", "text": "hi\n"}}
    assert told[-1]["data"]["exit_code"] == 0
    rest = await http.get(where, headers={**STREAM, "Last-Event-ID": "1"})
    assert events(rest.text)[0]["data"]["text"] == "i\n"


async def test_a_character_in_two_pieces_is_whole_for_who_goes_on_between_them(
    monkeypatch: pytest.MonkeyPatch, desk: Desk
) -> None:
    pieces = (Piece("stdout", b"a\xc3"), Piece("stdout", b"\xbcb"))

    class Writing(Command):
        def __init__(self) -> None:
            self.outputs = dict.fromkeys(("stdout", "stderr"))

        async def follow(self, position: int = 0) -> AsyncGenerator[Read[Piece]]:
            behind = 0
            for name, data in pieces:
                start, behind = behind, behind + len(data)
                if behind > position:
                    left = Piece(name, data[max(position - start, 0) :])
                    yield Read((left,), behind, 0)

        async def wait(self, timeout_s: float | None = None) -> bool:
            return True

    async def told(*given: Any) -> dict[str, Any]:
        return {}

    endpoints = FollowEndpoints(desk, {})
    monkeypatch.setattr(endpoints, "_told", told)

    async def texts(position: int) -> list[tuple[int, str]]:
        found = endpoints._events_of_command(Request({"type": "http"}), Writing(), position)
        return [(int(e.id), json.loads(e.data)["text"]) async for e in found if e.kind == "output"]

    whole = await texts(0)
    assert "".join(text for _, text in whole) == "aüb"
    rest = await texts(whole[0][0])
    assert whole[0][1] + "".join(text for _, text in rest) == "aüb"


@pytest.mark.parametrize("wrong", ["x", "-1", "1.5", "9" * 30, "٣"])
async def test_what_is_no_id_of_an_event_is_refused(
    http: httpx.AsyncClient, session: str, wrong: str
) -> None:
    where = await ran(http, session, "1")
    answer = await http.get(f"{where}/events", headers={b"Last-Event-ID": wrong.encode()})
    assert answer.status_code == 400


async def test_an_execution_of_another_session_is_not_there(
    http: httpx.AsyncClient, session: str
) -> None:
    where = await ran(http, session, "1")
    other = (await http.post("/mcp/v1/sessions", json={"reuse": False})).headers["location"]
    for path in ("", "/events", "/outputs/0"):
        there = where.replace(session, other) + path
        assert (await http.get(there)).status_code == 404, path
    assert (await http.delete(where.replace(session, other))).status_code == 404


async def test_a_slow_reader_is_waited_for_and_nothing_is_kept_for_it() -> None:
    made: list[int] = []
    may_take, sent = anyio.Event(), list[Message]()

    async def numbers() -> AsyncGenerator[Event]:
        for number in range(100):
            made.append(number)
            yield Event.of("output", number, number)

    async def send(message: Message) -> None:
        if len(sent) > 3:
            await may_take.wait()
        sent.append(message)

    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    stream = EventStream(numbers(), nullcontext)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream, {"type": "http", "method": "GET"}, receive, send)
            while len(sent) <= 3:
                await anyio.lowlevel.checkpoint()
            for _ in range(50):
                await anyio.lowlevel.checkpoint()
            assert len(made) <= 4
            may_take.set()
    assert len(made) == 100
    assert sent[-1] == {"type": "http.response.body", "body": b""}


async def test_a_reader_that_has_gone_ends_the_stream() -> None:
    is_closed = anyio.Event()

    async def nothing() -> AsyncGenerator[Event]:
        try:
            await anyio.sleep_forever()
            yield Event.of("output", 1, 1)
        finally:
            is_closed.set()

    async def send(message: Message) -> None:
        pass

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    with anyio.fail_after(5):
        await EventStream(nothing(), nullcontext)({"type": "http", "method": "GET"}, receive, send)
    assert is_closed.is_set()


async def test_while_nothing_comes_a_comment_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventstream, "SILENCE_S", 0.01)
    told, sent = anyio.Event(), list[bytes]()

    async def late() -> AsyncGenerator[Event]:
        await told.wait()
        yield Event.of("end", "end", {})

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))
        if sent[-1].startswith(b":"):
            told.set()

    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    with anyio.fail_after(5):
        await EventStream(late(), nullcontext)({"type": "http", "method": "GET"}, receive, send)
    assert b": nothing new\n\n" in sent


def test_an_event_is_one_whatever_its_data_holds() -> None:
    data = b'{"a":\r\n "b\\nevent: end"}'
    text = Event("output", "1", data).encoded().decode()
    assert events(text) == [{"event": "output", "id": "1", "data": {"a": "b\nevent: end"}}]
