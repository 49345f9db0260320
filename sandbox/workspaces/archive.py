"""A workspace as one archive, written and read by ``tar`` inside the container.

Here it is bytes: nothing is parsed or extracted. What the other side says is bounded, and what it
says of its success is believed of its own files only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager

import anyio

from sandbox.errorgroups import one_error
from sandbox.errors import FileError, InfrastructureError, ProtocolError
from sandbox.link import wire
from sandbox.link.link import Link, Stream, printable

SILENCE_S = 10.0
"""How long the other side may neither give nor take a byte."""
MAX_SAID = 2000

PACK = (
    *("/usr/bin/tar", "--create", "--file=-", "--directory=/workspace", "--format=gnu"),
    *("--sparse", "--one-file-system", "--ignore-failed-read", "."),
)
UNPACK = (
    *("/usr/bin/tar", "--extract", "--file=-", "--directory=/workspace", "--no-same-owner"),
    *("--preserve-permissions", "--no-overwrite-dir"),
)
_CHANGED_MEANWHILE = 1  # tar's word for files that were written as it read them


async def pack(link: Link, sink: Callable[[bytes], Awaitable[None]]) -> str:
    """Have the workspace written, piece by piece; an error of the sink ends the writing.

    Returns:
        What was left out, in the words of ``tar``; empty when nothing was.

    Raises:
        FileError: It could not be written as a whole.
        InfrastructureError: Nothing came for too long, or the link ended.
    """
    stream = link.open("process.run", argv=list(PACK))
    said = ""
    try:
        stream.end()
        while True:
            message = await _next(stream)
            match message:
                case (wire.BYTES, data):
                    await sink(data)
                case (wire.STDERR, data):
                    said = (said + data.decode("utf-8", "replace"))[:MAX_SAID]
                case (wire.JSON, data):
                    code = wire.decode_json(data).get("exit_code")
                    if code not in (0, _CHANGED_MEANWHILE):
                        raise FileError("io_error", f"It could not be read: {_words(said, code)}.")
                    return _words(said, "") if said else ""
                case (tag, _):
                    raise ProtocolError(f"an archive came with a message of tag {tag}")
    finally:
        stream.reset()


async def unpack(link: Link, pieces: AsyncIterator[bytes]) -> None:
    """Have the workspace read in; an error of the pieces ends the reading.

    Raises:
        FileError: It does not fit.
        InfrastructureError: It was not taken in time, or the link ended.
    """
    stream = link.open("process.run", argv=list(UNPACK))
    ending: dict[str, object] = {}
    said = ""

    async def listen(scope: anyio.CancelScope) -> None:
        nonlocal said
        while True:
            message = await stream.receive()
            if message is None:
                raise ProtocolError("a stream ended where an answer was due")
            if message.tag == wire.JSON:
                ending.update(message.json())
                scope.cancel()  # what is still to be sent is not wanted
                return
            if message.tag == wire.STDERR:
                said = (said + message.data.decode("utf-8", "replace"))[:MAX_SAID]

    try:
        async with one_error() as tasks:
            tasks.start_soon(listen, tasks.cancel_scope)
            async for piece in pieces:
                with _patience():
                    await stream.send(piece)
            stream.end()
    finally:
        stream.reset()
    if ending.get("exit_code") != 0:
        why = _words(said, ending.get("exit_code"))
        raise FileError("no_space", f"It could not be read in: {why}.")


async def _next(stream: Stream) -> tuple[int, bytes]:
    with _patience():
        message = await stream.receive()
    if message is None:
        raise ProtocolError("a stream ended where an answer was due")
    return message.tag, message.data


@contextmanager
def _patience() -> Generator[None]:
    """Wait for the other side, but not for ever."""
    try:
        with anyio.fail_after(SILENCE_S):
            yield
    except TimeoutError as exc:
        raise InfrastructureError(
            f"The sandbox neither gave nor took anything for {SILENCE_S:g} s."
        ) from exc


def _words(said: str, code: object) -> str:
    line = printable(said.strip().splitlines()[0], 200) if said.strip() else ""
    return line or f"tar ended with {printable(str(code), 20)}"
