"""The variables of a kernel as bytes, on their way to a kernel of another sandbox.

They are a pickle, which is never read here: whoever loads one runs what it says. It goes from the
link of one sandbox into that of another, within a bound, and what became of each name is told by
the kernel that has loaded them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Annotated

import anyio
from pydantic import BaseModel, Field

from sandbox.answers import Answer, parse
from sandbox.errorgroups import one_error
from sandbox.errors import InfrastructureError, ProtocolError, QuotaExceeded
from sandbox.link import wire
from sandbox.link.link import Link, Stream
from sandbox.outputs.redaction import Redactor

MAX_TOLD = 200
"""Names that a kernel may tell of each kind."""
NAME_S = 10
"""How long the kernel may work on one name."""
TOTAL_S = 60
"""How long it may write, all names together."""
SILENCE_S = TOTAL_S + 15.0
"""How long it may say nothing at all: it may be at a name that takes no bytes, or in a cell."""
SLACK_BYTES = 1024 * 1024
"""What may come beside the bytes of the names."""


class LeftName(BaseModel, frozen=True):
    """A name that was not carried."""

    name: str
    reason: str


class CarriedState(BaseModel, frozen=True):
    """What a kernel has of the one it was forked from."""

    kernel_id: str
    carried: tuple[str, ...] = ()
    """Names, of which the first hundreds are told."""
    carried_count: int = 0
    left: tuple[LeftName, ...] = ()
    left_count: int = 0
    size_bytes: int = 0
    problem: str = ""
    """Why there may be more names that were not carried; empty when these are all."""


_Name = Annotated[str, Field(max_length=1000)]
_Count = Annotated[int, Field(ge=0, lt=2**53)]


class _Left(Answer):
    name: _Name
    reason: _Name


class _Report(Answer):
    carried: Annotated[list[_Name], Field(max_length=MAX_TOLD)]
    carried_count: _Count
    left: Annotated[list[_Left], Field(max_length=MAX_TOLD)]
    left_count: _Count
    size_bytes: _Count
    cut: bool


async def carry_out(
    link: Link, kernel_id: str, total_bytes: int, sink: Callable[[bytes], Awaitable[None]]
) -> None:
    """Have a kernel write down its variables, between two cells.

    It goes on at once: what is written is what it had at that moment.

    Raises:
        Conflict: It cannot be done now, or it is no kernel that can.
        QuotaExceeded: More came than was asked for.
        InfrastructureError: Nothing came for too long, or the link ended.
    """
    bounds = {"total_bytes": total_bytes, "name_s": NAME_S, "total_s": TOTAL_S}
    stream = link.open("kernel.carry_out", kernel_id=kernel_id, **bounds)
    size_bytes = 0
    try:
        stream.end()
        while True:
            with _patience():
                message = await stream.receive()
            if message is None:
                return
            if message.tag != wire.BYTES:
                raise ProtocolError("something else than bytes came of a kernel's variables")
            size_bytes += len(message.data)
            if size_bytes > total_bytes + SLACK_BYTES:
                raise QuotaExceeded("More came of a kernel's variables than was asked for.")
            await sink(message.data)
    finally:
        stream.reset()


async def carry_in(
    link: Link, kernel_id: str, pieces: AsyncIterator[bytes], redactor: Redactor
) -> CarriedState:
    """Have a kernel load what another one has written down; what came of each name.

    Raises:
        Conflict: It is no kernel that can.
        InfrastructureError: It took too long, or the link ended.
    """
    stream = link.open("kernel.carry_in", kernel_id=kernel_id, name_s=TOTAL_S)
    found: list[_Report] = []

    async def listen(scope: anyio.CancelScope) -> None:
        found.append(parse(_Report, redactor.data(await stream.receive_json())))
        scope.cancel()  # what is still to be sent is not wanted

    try:
        async with one_error() as tasks:
            tasks.start_soon(listen, tasks.cancel_scope)
            await _feed(stream, pieces)
            with _patience():
                await anyio.sleep_forever()
    finally:
        stream.reset()
    (report,) = found
    return CarriedState(
        kernel_id=kernel_id,
        problem="what came of its variables was cut short" if report.cut else "",
        left=tuple(LeftName(name=each.name, reason=each.reason) for each in report.left),
        **report.model_dump(include={"carried", "carried_count", "left_count", "size_bytes"}),
    )


async def _feed(stream: Stream, pieces: AsyncIterator[bytes]) -> None:
    async for piece in pieces:
        with _patience():
            await stream.send(piece)
    stream.end()


@contextmanager
def _patience() -> Generator[None]:
    """Wait for a kernel, but not for ever."""
    try:
        with anyio.fail_after(SILENCE_S):
            yield
    except TimeoutError as exc:
        raise InfrastructureError(
            f"The kernel neither gave nor took anything of its variables for {SILENCE_S:g} s."
        ) from exc
