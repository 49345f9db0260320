from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import ProtocolError, SessionLost
from sandbox.runtimes.docker.execstream import MAX_LINES, Demultiplexer, ExecStream


def frame(stream: int, data: bytes) -> bytes:
    return struct.pack("!BxxxI", stream, len(data)) + data


@given(
    st.lists(st.tuples(st.integers(1, 3), st.binary(max_size=100)), max_size=20),
    st.lists(st.integers(1, 30), max_size=100),
)
def test_output_and_errors_are_told_apart_however_they_are_cut(
    frames: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    data = b"".join(frame(stream, payload) for stream, payload in frames)
    frames_of = Demultiplexer()
    output = errors = b""
    for cut in [*cuts, len(data) or 1]:
        more_output, more_errors = frames_of.feed(data[:cut])
        data = data[cut:]
        output += more_output
        errors += more_errors
    assert output == b"".join(payload for stream, payload in frames if stream == 1)
    assert errors == b"".join(payload for stream, payload in frames if stream != 1)


@given(st.binary(min_size=8, max_size=300), st.integers(1, 300))
def test_bytes_that_are_no_frames_break_the_protocol_or_are_passed_on(
    data: bytes, cut: int
) -> None:
    frames_of = Demultiplexer()
    passed = 0
    try:
        for start in range(0, len(data), cut):
            output, errors = frames_of.feed(data[start : start + cut])
            passed += len(output) + len(errors)
    except ProtocolError:
        return
    assert passed <= len(data) - 8


@pytest.fixture
async def ends() -> AsyncIterator[tuple[ExecStream, asyncio.StreamReader, asyncio.StreamWriter]]:
    """An exec's stream and the engine's end of its connection."""
    far: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
    far = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda *pair: far.set_result(pair), "127.0.0.1", 0)
    near = await asyncio.open_connection(*server.sockets[0].getsockname())
    reader, writer = await far
    stream = ExecStream(*near, "the bridge")
    with anyio.fail_after(10):
        yield stream, reader, writer
    await stream.close()
    writer.transport.abort()
    server.close()


Ends = tuple[ExecStream, asyncio.StreamReader, asyncio.StreamWriter]


@pytest.mark.anyio
async def test_an_exec_is_read_until_its_end_and_written_without_framing(ends: Ends) -> None:
    stream, reader, writer = ends
    await stream.write(b"\0in")
    assert await reader.readexactly(3) == b"\0in"
    writer.write(frame(1, b"\0one") + frame(2, b"noise\n") + frame(1, b"two"))
    writer.close()
    got = b""
    while data := await stream.read():
        got += data
    assert got == b"\0onetwo"
    assert await stream.read() == b""


@pytest.mark.anyio
async def test_words_of_the_engine_where_a_link_was_due_are_the_error(ends: Ends) -> None:
    stream, _, writer = ends
    writer.write(frame(1, b"OCI runtime exec failed: no \x1b[31mpython\r\n"))
    with pytest.raises(SessionLost, match="OCI runtime exec failed") as caught:
        await stream.read()
    assert "\x1b" not in str(caught.value)


@pytest.mark.anyio
async def test_what_the_bridge_says_goes_to_the_log_bounded_and_printable(
    ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    stream, _, writer = ends
    caplog.set_level(logging.WARNING)
    for number in range(300):
        writer.write(frame(2, b"\x1b[31mline %d\n" % number + b"x" * 5000))
    writer.write(frame(1, b"\0"))
    assert await stream.read() == b"\0"
    assert "line 0" in caplog.text
    assert "\x1b" not in caplog.text
    assert len(caplog.records) == MAX_LINES + 1
    assert all(len(record.getMessage()) < 4200 for record in caplog.records)


@pytest.mark.anyio
async def test_closing_ends_a_read_that_waits_and_the_engine_notices(ends: Ends) -> None:
    stream, reader, _ = ends
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(stream.read())
        await asyncio.sleep(0)
        await stream.close()
        await stream.close()
    assert reading.result() == b""
    assert await reader.read() == b""
    with pytest.raises(ConnectionError):
        await stream.write(b"x")
