"""A channel: messages both ways between a program and what serves it, over a socket or in memory.

A message is bytes, or a JSON object. The first object of the program says what it wants. Whatever
serves it ends with an object; an error of ours is the object ``{"error": …}``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio
import anyio.lowlevel
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from pydantic import BaseModel, ValidationError

from sandbox.errorgroups import one_error
from sandbox.errors import FileError, InvalidRequest, SandboxError

if TYPE_CHECKING:
    from sandbox.sessions.session import Session

Message = bytes | dict[str, Any]
TAGS = {"stdout": b"\1", "stderr": b"\2"}
"""The first byte of a message with a command's output says which it is; the rest is as written."""
IN_FLIGHT = 16
"""Messages that wait in memory for the other end."""

_Request = TypeVar("_Request", bound=BaseModel)


class Channel(Protocol):
    """One end of a channel."""

    async def send(self, message: Message) -> None:
        """Send a message, when the other end can take it."""
        ...

    async def receive(self) -> Message | None:
        """The next message; None when the other end has gone."""
        ...


Serve = Callable[["Session", Channel], Awaitable[None]]


class MemoryChannel:
    """One end of a channel within this process."""

    def __init__(
        self,
        incoming: MemoryObjectReceiveStream[Message],
        outgoing: MemoryObjectSendStream[Message],
    ) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    async def send(self, message: Message) -> None:
        """Send a message; nobody hears it when the other end has gone."""
        try:
            await self._outgoing.send(message)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            await anyio.lowlevel.checkpoint()

    async def receive(self) -> Message | None:
        """The next message; None when the other end has gone."""
        try:
            return await self._incoming.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            return None

    def close(self) -> None:
        """Go away."""
        self._incoming.close()
        self._outgoing.close()


def memory_channel() -> tuple[MemoryChannel, MemoryChannel]:
    """Both ends of a new channel within this process."""
    there, here = (anyio.create_memory_object_stream[Message](IN_FLIGHT) for _ in range(2))
    return MemoryChannel(here[1], there[0]), MemoryChannel(there[1], here[0])


@asynccontextmanager
async def within_process(serve: Serve, session: Session) -> AsyncGenerator[MemoryChannel]:
    """A program's end of a channel to what serves it here, until the block ends."""
    ours, theirs = memory_channel()

    async def live() -> None:
        try:
            await told_of_errors(serve, session, theirs)
        except SandboxError:
            pass  # the other end was told
        finally:
            theirs.close()

    async with one_error() as tasks:
        tasks.start_soon(live)
        try:
            yield ours
        finally:
            ours.close()


async def told_of_errors(serve: Serve, session: Session, channel: Channel) -> None:
    """Serve a channel; an error of ours is said over it, too."""
    try:
        await serve(session, channel)
    except SandboxError as exc:
        reason = exc.reason if isinstance(exc, FileError) else ""
        told = {"code": exc.code, "reason": reason, "message": exc.message, "remedy": exc.remedy}
        await channel.send({"error": told})
        raise


async def opening(channel: Channel, model: type[_Request]) -> _Request | None:
    """What the program at the other end wants; None when it has gone."""
    message = await channel.receive()
    return None if message is None else parsed(message, model)


def parsed(message: Message, model: type[_Request]) -> _Request:
    """A message as what it must be.

    Raises:
        InvalidRequest: It is something else.
    """
    if isinstance(message, bytes):
        raise InvalidRequest("Bytes came where a JSON object is due.")
    try:
        return model.model_validate(message)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "message"
        raise InvalidRequest(
            f"{where}: {first['msg']}.",
            remedy=f"Send a JSON object with any of {', '.join(model.model_fields)}.",
        ) from exc
