"""A link: the streams of ``sandbox.link.mux`` driven by asyncio over one byte stream.

The controller's end opens streams (:meth:`Link.open`, :meth:`Link.call`); the supervisor's end
answers them (``on_open``). Both ends share this module, so it uses the standard library only and
is copied into the images. What comes from the other end may use up neither memory nor time: long
messages are counted on the whole link, and no link gets more than its share of the event loop
(``sandbox.link.turn``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from time import thread_time
from typing import Any, Protocol, cast

from sandbox.errors import (
    FileError,
    InfrastructureError,
    InvalidRequest,
    LinkLost,
    ProtocolError,
    QuotaExceeded,
    SandboxError,
)
from sandbox.link import wire
from sandbox.link.mux import Mux
from sandbox.link.stream import MAX_MESSAGE, Message, Stream, printable, refusal
from sandbox.link.turn import TURN_S, Turn

__all__ = ["MAX_MESSAGE", "ByteStream", "Link", "Message", "Stream", "first_error", "printable"]

# Long messages under assembly or waiting to be taken, on the whole link.
MAX_HELD = 96 * 1024 * 1024
GREETING_TIMEOUT_S = 15.0
ANSWER_TIMEOUT_S = 60.0
PING_INTERVAL_S = 15.0
MAX_UNANSWERED_PINGS = 3
FOLLOWING = ".attach"
"""What the names of operations end with that last as long as their link."""

logger = logging.getLogger(__name__)


class ByteStream(Protocol):
    """What a link runs over: an ordered, reliable stream of bytes, both ways."""

    async def read(self) -> bytes:
        """The next bytes, as many as there are; empty at the end, and once closed."""
        ...

    async def write(self, data: bytes) -> None:
        """Write all of it, waiting while the other side does not take it."""
        ...

    async def close(self) -> None:
        """Close both directions; may be called twice."""
        ...


OnOpen = Callable[[Stream], Awaitable[None]]


class Link:
    """One end of a link; :meth:`run` must be running for anything to move.

    Args:
        initiator: True at the controller's end, which also watches that the other end lives, unless
            that :attr:`is_still`.
        on_open: Called in a task of its own for each stream the other end opens. A
            ``SandboxError`` it raises becomes the stream's reset; when it returns, our half is
            ended; when the other end resets the stream, it is cancelled. None refuses every such
            stream.
        ping_interval_s: How often to ask for a sign of life. After ``MAX_UNANSWERED_PINGS``
            intervals without a byte the link is lost.
    """

    def __init__(
        self,
        io: ByteStream,
        *,
        initiator: bool,
        hello: Mapping[str, Any],
        on_open: OnOpen | None = None,
        ping_interval_s: float = PING_INTERVAL_S,
    ) -> None:
        self.turn = Turn()
        """Counts what is done with what comes over the link: all that work for it share it."""
        self.is_still = False
        """Whether the other end is known to be stopped, so that no sign of life is asked for."""
        self._io = io
        self._mux = Mux(initiator=initiator, hello=hello)
        self._on_open = on_open
        self._initiator = initiator
        self._ping_interval_s = ping_interval_s
        self._streams: dict[int, Stream] = {}
        self._serving: dict[int, asyncio.Task[None]] = {}
        self._waiting_to_send: set[Stream] = set()
        self._held = 0
        self._heard = False
        self._hello: Mapping[str, Any] | None = None
        self._greeted = asyncio.Event()
        self._outgoing = asyncio.Event()
        self._closed = asyncio.Event()
        self._error: SandboxError | None = None

    # --- life

    async def run(self) -> None:
        """Move bytes until either end closes, then return; why is in :attr:`error`."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write())
                if self._initiator:
                    tasks.create_task(self._keep_alive())
                await self._read(tasks)
                raise _Over  # ends the group and every task of a stream
        except* (_Over, OSError):
            pass
        except* SandboxError as group:
            self._error = self._error or cast(SandboxError, first_error(group))
        except* Exception as group:  # the outermost edge: what comes in may end its own link only
            logger.exception("a link failed")
            self._error = InfrastructureError(f"The link failed: {first_error(group)!r:.200}")
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Close the link; :meth:`run` returns soon after. May be called twice."""
        self._closed.set()
        self._greeted.set()
        self._outgoing.set()
        error = self._ending()
        for stream in tuple(self._streams.values()):
            stream.fail(error)
        self._streams.clear()
        with contextlib.suppress(OSError):
            await self._io.close()

    @property
    def error(self) -> SandboxError | None:
        """Why the link ended, when it was for more than a closed byte stream; else None."""
        return self._error

    @property
    def is_closed(self) -> bool:
        """Whether the link has ended."""
        return self._closed.is_set()

    async def wait_closed(self) -> None:
        """Wait until the link has ended."""
        await self._closed.wait()

    async def greeting(self, timeout_s: float = GREETING_TIMEOUT_S) -> Mapping[str, Any]:
        """Wait for the other end's HELLO and return what it says of itself.

        Raises:
            LinkLost: It did not come in time, or the link ended first.
            SandboxError: What ended the link first.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._greeted.wait()
        except TimeoutError as exc:
            raise LinkLost(f"The supervisor did not answer within {timeout_s:g} s.") from exc
        if self._hello is None:
            raise self._ending()
        return self._hello

    # --- streams

    @property
    def going_on(self) -> list[str]:
        """The operations that have not ended, but for those that follow a log as long as the link
        lasts, which only wait."""
        ops = (str(stream.request.get("op")) for stream in self._streams.values())
        return [op for op in ops if not op.endswith(FOLLOWING)]

    def open(self, op: str, **fields: Any) -> Stream:
        """Open a stream with the request ``{"op": op, **fields}``.

        Raises:
            LinkLost: The link has ended.
            InvalidRequest: The request does not fit in a frame, or UTF-8 cannot express it.
            QuotaExceeded: Too many streams are open.
        """
        if self.is_closed:
            raise self._ending()
        request = {"op": op, **fields}
        try:
            number = self._mux.open(request)
        except ValueError as exc:
            raise InvalidRequest(f"The request cannot be sent: {exc}.") from exc
        except OverflowError as exc:
            raise QuotaExceeded(
                f"Too much goes on in this sandbox at once: {exc}.", remedy="Try again later."
            ) from exc
        stream = self._streams[number] = Stream(self, number, request)
        self._flush()
        return stream

    async def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """Open a stream, take its one JSON answer and wait for its end.

        Raises:
            SandboxError: What the other end refused with.
            ProtocolError: The answer is something else than one JSON object.
            LinkLost: The link ended.
            InfrastructureError: The answer did not come within ``ANSWER_TIMEOUT_S``.
        """
        stream = self.open(op, **fields)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                stream.end()
                answer = await stream.receive_json()
                if await stream.receive() is not None:
                    raise ProtocolError("an answer is more than one message")
                return answer
        except TimeoutError as exc:
            raise InfrastructureError(
                f"The supervisor did not answer {op} within {ANSWER_TIMEOUT_S:g} s."
            ) from exc
        finally:
            stream.reset()

    # --- for streams

    def send(self, number: int, data: bytes, tag: int) -> None:
        """Queue a message of a stream."""
        self._mux.send(number, data, tag)
        self._flush()

    def end(self, number: int) -> None:
        """Half-close a stream."""
        self._mux.end(number)
        self._flush()

    def reset(self, number: int, code: str, message: str) -> None:
        """Reset a stream and forget it."""
        if not self.is_closed:
            self._mux.reset(number, code, message)
            self._forget_streams_over()
            self._flush()

    def queued(self, number: int) -> int:
        """The bytes of a stream that wait to be sent."""
        return self._mux.queued(number)

    def wake_when_sent(self, stream: Stream) -> None:
        """Wake a stream once when something was sent."""
        self._waiting_to_send.add(stream)

    def consumed(self, number: int, cost: int) -> None:
        """Give a stream's credit back to the other end."""
        if cost:
            self._mux.consumed(number, cost)
            self._flush()

    def hold(self, size: int) -> None:
        """Count bytes of long messages on the whole link."""
        self._held += size
        if self._held > MAX_HELD:
            raise ProtocolError(f"long messages take more than {MAX_HELD} bytes")

    # --- tasks

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        while data := await self._io.read():
            self._heard = True
            began = thread_time()
            for event in self._mux.receive(data):
                self._dispatch(event, tasks)
                if (spent_s := thread_time() - began) > TURN_S:
                    self.turn.charge(spent_s)
                    await self.turn.rest()
                    began = thread_time()
            self._forget_streams_over()
            self._flush()
            self.turn.charge(thread_time() - began)
            await self.turn.rest()

    def _dispatch(self, event: wire.Event, tasks: asyncio.TaskGroup) -> None:
        match event:
            case wire.Received(number):
                if stream := self._streams.get(number):
                    stream.deliver(event)
            case wire.Ended(number):
                if stream := self._streams.get(number):
                    stream.finish()
            case wire.WasReset(number, code, message):
                if stream := self._streams.get(number):
                    stream.fail(refusal(code, message))
                if task := self._serving.get(number):
                    task.cancel()
            case wire.Opened(number, request):
                stream = self._streams[number] = Stream(self, number, request)
                if self._on_open is None:
                    stream.reset("not_permitted", "This end opens no streams.")
                else:
                    task = tasks.create_task(self._serve(self._on_open, stream))
                    self._serving[number] = task
                    task.add_done_callback(lambda _: self._serving.pop(number, None))
            case wire.Hello(info):
                self._hello = info
                self._greeted.set()
            case wire.Credited() | wire.Ponged():
                pass  # the mux has taken note; any byte counts as a sign of life

    async def _serve(self, on_open: OnOpen, stream: Stream) -> None:
        try:
            await on_open(stream)
            stream.end()
        except FileError as exc:
            stream.reset(f"file.{exc.reason}", exc.message)
        except SandboxError as exc:
            stream.reset(exc.code, exc.message)
        except asyncio.CancelledError:
            stream.reset("cancelled")
            raise
        except Exception as exc:  # the outermost edge of a stream: one bad request ends only itself
            logger.exception("stream %s failed", stream.request.get("op"))
            stream.reset("failed", f"{type(exc).__name__}: {exc}")

    async def _write(self) -> None:
        while True:
            data = self._mux.pull()
            self._forget_streams_over()
            if data:
                await self._io.write(data)
            waiting, self._waiting_to_send = self._waiting_to_send, set()
            for stream in waiting:
                stream.wake()
            if not data:
                self._outgoing.clear()
                await self._outgoing.wait()

    async def _keep_alive(self) -> None:
        # Counts silent intervals, not time: a process that was stopped itself must not conclude
        # from the clock alone that the other end is gone.
        await self._greeted.wait()  # until then, who waits for the greeting keeps the time
        silent = 0
        while silent < MAX_UNANSWERED_PINGS:
            self._heard = False
            if not self.is_still:
                self._mux.ping(os.urandom(8))
                self._flush()
            await asyncio.sleep(self._ping_interval_s)
            silent = 0 if self._heard or self.is_still else silent + 1
        raise LinkLost(f"The supervisor was silent for {silent * self._ping_interval_s:g} s.")

    def _flush(self) -> None:
        if self._mux.has_output:
            self._outgoing.set()

    def _forget_streams_over(self) -> None:
        for number in self._mux.take_over():
            if stream := self._streams.pop(number, None):
                stream.let_go()

    def _ending(self) -> SandboxError:
        return self._error or LinkLost("The link to the sandbox ended.")


class _Over(Exception):
    """The other end closed the byte stream."""


def first_error(error: BaseException) -> BaseException:
    """The first error of a group, however deep, or the error itself."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error
