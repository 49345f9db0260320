"""A call whose connection is lost: what it began goes on, in both eras, and is found again."""

from __future__ import annotations

import re
import socket
import struct
from typing import Any

import anyio
import anyio.abc
import httpx2
import pytest

from ..support.calls import call
from ..support.rawclient import MODERN, RawClient, result_in
from ..support.served import Served

pytestmark = pytest.mark.anyio

ERAS = ["2025-11-25", MODERN]
CODE = "import time\nprint('begun', flush=True)\ntime.sleep(3)\nprint('ended')"


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    return request.param


async def begun(client: RawClient) -> dict[str, Any]:
    """The cell that runs, as a client finds it."""
    with anyio.fail_after(20):
        while True:
            found = (await client.call("list_executions"))["structuredContent"]["executions"]
            if found and found[0]["status"] == "running" and found[0]["duration_s"] > 0.2:
                return found[0]
            await anyio.sleep(0.1)


@pytest.mark.parametrize("aborts", [False, True], ids=["closed", "aborted"])
async def test_the_cell_goes_on_and_is_found_by_the_next_conversation(
    clean: Served, era: str, aborts: bool
) -> None:
    async with clean.http() as http:
        first = RawClient(clean, http, era)
        await first.begin()
        await first.run("x = 1")
        stream = await first.send("execute_code", code=CODE)
        running = await begun(first)
        if aborts:  # then the other end is told of a failure, not of an end
            given = anyio.abc.SocketAttribute.raw_socket
            stream.extra_attributes[given]().setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        await stream.aclose()
        await anyio.sleep(0.5)
        second = RawClient(clean, http, era)
        await second.begin()
        with anyio.fail_after(20):
            asked = {"execution_id": running["execution_id"], "wait": 15}
            ended = await second.call("get_execution", **asked)
        assert ended["structuredContent"]["status"] == "ok"
        assert "ended" in str(ended["content"])
        listed = (await second.call("list_executions"))["structuredContent"]["executions"]
        assert [each["status"] for each in listed[:2]] == ["ok", "ok"]
        assert listed[0]["code"] == "import time"
        assert "1" in await second.run("print(x)")


async def test_a_command_goes_on_too(clean: Served, era: str) -> None:
    async with clean.http() as http:
        client = RawClient(clean, http, era)
        await client.begin()
        await client.run("x = 1")
        stream = await client.send("run_command", command="sleep 2; echo done > done.txt")
        await anyio.sleep(1)
        await stream.aclose()
        with anyio.fail_after(20):
            while (await client.call("read_file", path="done.txt")).get("isError"):
                await anyio.sleep(0.2)


async def test_who_gives_up_by_hanging_up_stops_the_cell_with_interrupt_kernel(
    clean: Served,
) -> None:
    async with clean.client(MODERN) as client:
        await call(client, "execute_code", code="import time\nkept = 'here'")
        with anyio.move_on_after(1):
            await client.call_tool("execute_code", {"code": "time.sleep(300)"})
        listed = await call(client, "list_executions")
        assert listed["executions"][0]["status"] == "running"
        await call(client, "interrupt_kernel")
        with anyio.fail_after(20):
            result = await client.call_tool("execute_code", {"code": "print(kept)"})
        assert "here" in str(result.content)
        listed = await call(client, "list_executions")
        latest = [each["status"] for each in listed["executions"][:3]]
        assert latest == ["ok", "interrupted", "ok"]


async def test_who_gives_up_in_so_many_words_interrupts_the_cell(clean: Served) -> None:
    async with clean.http() as http:
        client = RawClient(clean, http)
        await client.begin()
        await client.run("x = 1")
        stream = await client.send("execute_code", code="import time\ntime.sleep(300)")
        asked = client.asked
        execution_id = (await begun(client))["execution_id"]
        await client.cancel(asked)
        with anyio.fail_after(20):
            ended = await client.call("get_execution", execution_id=execution_id, wait=15)
        assert ended["structuredContent"]["status"] == "interrupted"
        await stream.aclose()


async def events(stream: anyio.abc.SocketStream, enough: str) -> str:
    """What comes on a stream until this has come."""
    heard = ""
    with anyio.fail_after(20):
        while enough not in heard:
            heard += (await stream.receive()).decode()
    return heard


async def test_who_comes_back_with_the_last_event_is_told_what_it_missed(clean: Served) -> None:
    async with clean.http() as http:
        client = RawClient(clean, http)
        await client.begin()
        stream = await client.send("execute_code", code=CODE)
        heard = await events(stream, "retry:")
        (last,) = re.findall(r"^id: (\S+)\r?$", heard, re.MULTILINE)
        assert re.search(r"^data: ?\r?$", heard, re.MULTILINE), "it says nothing but its id"
        await begun(client)
        await stream.aclose()
        other = RawClient(clean, http)
        await other.begin()
        foreign = await resumed(other, http, last)
        assert "result" not in foreign, "of another conversation it is the id of nothing"
        told = result_in(await resumed(client, http, last))
        assert "ended" in str(told["content"])


async def resumed(client: RawClient, http: httpx2.AsyncClient, last: str) -> str:
    """What a client is told that comes back after an event."""
    headers = {**client.headers, "Last-Event-ID": last}
    heard = ""
    with anyio.fail_after(20):
        async with http.stream("GET", "/mcp/v1", headers=headers) as answer:
            async for text in answer.aiter_text():
                heard += text
                if '"result"' in heard:
                    break
    return heard


async def test_streams_of_versions_before_it_begin_as_they_did(clean: Served) -> None:
    async with clean.http() as http:
        client = RawClient(clean, http, "2025-06-18")
        await client.begin()
        stream = await client.send("execute_code", code="1")
        assert "retry:" not in await events(stream, '"result"')
        await stream.aclose()
