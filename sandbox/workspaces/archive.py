"""A workspace as one archive, written and read by ``tar`` inside the container.

Here it is bytes: nothing is parsed or extracted. What the other side says is bounded, and what it
says of its success is believed of its own files only.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager

import anyio

from sandbox.errorgroups import one_error
from sandbox.errors import FileError, InfrastructureError, ProtocolError
from sandbox.link import wire
from sandbox.link.link import Link, Stream, printable

SILENCE_S = 10.0
"""How long the other side may neither give nor take a byte."""
MAX_SAID = 2000
MAX_PRINTED = 100

PACK = (
    *("/usr/bin/tar", "--create", "--file=-", "--directory=/workspace", "--format=gnu"),
    *("--sparse", "--one-file-system", "--ignore-failed-read", "."),
)
UNPACK = (
    *("/usr/bin/tar", "--extract", "--file=-", "--directory=/workspace", "--no-same-owner"),
    *("--preserve-permissions", "--no-overwrite-dir"),
)
COPY = (
    *("/bin/bash", "-c"),
    # Nothing is opened that another process has to open first: a pipe or a socket is only named.
    r"""cd /workspace && set -o pipefail && /usr/bin/find . -xdev -mindepth 1 \
    \( -type p -fprintf /dev/stderr '%p: a named pipe is left out\n' \) -o \
    \( -type s -fprintf /dev/stderr '%p: a socket is left out\n' \) -o -print0 |
    /usr/bin/tar --create --file=- --format=posix --pax-option=delete=atime,delete=ctime --sparse \
    --ignore-failed-read --no-recursion --null --verbatim-files-from --files-from=-""",
)
"""What writes it for another sandbox, with its times to the nanosecond."""
PASTE = (
    *("/bin/bash", "-c"),
    f"""{" ".join(UNPACK)} && cd /workspace &&
    /usr/bin/find . -xdev -mindepth 1 ! -type d -printf '%s\\n' |
    /usr/bin/awk '{{ size += $1 }} END {{ printf "%d %.0f\\n", NR, size }}'""",
)
"""What reads it in there, and prints how many files it has, and their bytes."""
_SPEAKER = re.compile(r"\A(?:/usr/bin/)?(?:tar|find): ")
_CHANGED_MEANWHILE = 1  # tar's word for files that were written as it read them


async def pack(
    link: Link, sink: Callable[[bytes], Awaitable[None]], argv: Sequence[str] = ()
) -> list[str]:
    """Have the workspace written, piece by piece; an error of the sink ends the writing.

    Args:
        argv: What writes it; ``PACK`` when empty.

    Returns:
        What was left out or changed meanwhile, a line each, in the words of ``tar``.

    Raises:
        FileError: It could not be written as a whole.
        InfrastructureError: Nothing came for too long, or the link ended.
    """
    stream = link.open("process.run", argv=list(argv or PACK))
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
                    return _lines(said)
                case (tag, _):
                    raise ProtocolError(f"an archive came with a message of tag {tag}")
    finally:
        stream.reset()


async def unpack(
    link: Link, pieces: AsyncIterator[bytes], argv: Sequence[str] = ()
) -> tuple[int, ...]:
    """Have the workspace read in; an error of the pieces ends the reading.

    Args:
        argv: What reads it in; ``UNPACK`` when empty.

    Returns:
        The numbers that it has printed, if any.

    Raises:
        FileError: It does not fit.
        InfrastructureError: It was not taken in time, or the link ended.
    """
    stream = link.open("process.run", argv=list(argv or UNPACK))
    ending: dict[str, object] = {}
    said = printed = ""

    async def listen(scope: anyio.CancelScope) -> None:
        nonlocal said, printed
        while True:
            message = await stream.receive()
            if message is None:
                raise ProtocolError("a stream ended where an answer was due")
            if message.tag == wire.JSON:
                ending.update(message.json())
                scope.cancel()  # what is still to be sent is not wanted
                return
            text = message.data.decode("utf-8", "replace")
            if message.tag == wire.STDERR:
                said = (said + text)[:MAX_SAID]
            else:
                printed = (printed + text)[:MAX_PRINTED]

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
    return tuple(int(word) for word in printed.split() if word.isascii() and word.isdecimal())


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


def _lines(said: str) -> list[str]:
    lines = [_SPEAKER.sub("", line).strip() for line in said.splitlines()]
    return [printable(line, 200) for line in lines if line]


def _words(said: str, code: object) -> str:
    line = printable(said.strip().splitlines()[0], 200) if said.strip() else ""
    return line or f"tar ended with {printable(str(code), 20)}"
