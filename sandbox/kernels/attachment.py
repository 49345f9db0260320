"""What ties us to a kernel: its messages come and requests go, over one link after another."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from sandbox.answers import no_link
from sandbox.bulkheads.overruns import Overruns
from sandbox.errors import ProtocolError, SandboxError, TooMuchWork
from sandbox.kernels.answers import epoch_of
from sandbox.kernels.events import KernelEvents, LoggedMessage
from sandbox.kernels.messages import KernelMessage, open_envelope, read, set_aside
from sandbox.link import wire
from sandbox.link.link import Link, Stream
from sandbox.link.turn import Turn

KEEP_BYTES = 8 * 1024 * 1024
"""Messages are acknowledged at the latest after this many bytes; the log inside holds four times
that."""

logger = logging.getLogger(__name__)


class Attachment:
    """Reads each message of a kernel once, whatever happens to links, and sends it requests.

    A message that takes too long to read is set aside: an event stands for it. It counts as read,
    and is acknowledged at once, so that no controller after this one meets it again.

    Args:
        take: Called with each message, in order, once it is in ``events``.
        keep: Called when much has come, or when something was set aside; it must acknowledge.
    """

    def __init__(
        self,
        kernel_id: str,
        link: Link,
        events: KernelEvents,
        overruns: Overruns,
        take: Callable[[KernelMessage], None],
        keep: Callable[[], Awaitable[None]],
    ) -> None:
        self.link = link
        """The link for calls, which may have ended."""
        self._kernel_id = kernel_id
        self._events = events
        self._overruns = overruns
        self._take = take
        self._keep = keep
        self._stream: Stream | None = None
        self._acknowledged = 0
        self._unacknowledged_bytes = 0

    @property
    def is_attached(self) -> bool:
        """Whether messages can come and requests can go."""
        return self._stream is not None

    @property
    def turn(self) -> Turn:
        """The session's share of the event loop."""
        return self.link.turn

    async def pump(self, link: Link, attached: Callable[[], Awaitable[None]]) -> None:
        """Read over a link until that ends; ``attached`` is called once requests can be sent."""
        stream: Stream | None = None
        try:
            stream = link.open(
                "kernel.attach", kernel_id=self._kernel_id, after=self._events.log.end
            )
            if self._acknowledged:  # what was said last may have been lost with its link
                await stream.send_json({"ack": self._acknowledged})
            self._stream = stream
            await attached()
            async for message in stream:
                if message.tag == wire.KERNEL:
                    await self._read(message.data)
        except ProtocolError as exc:
            logger.warning("kernel %s: %s; closing the link", self._kernel_id, exc)
            await link.aclose()
        except SandboxError as exc:
            logger.info("kernel %s is no longer attached: %s", self._kernel_id, exc)
        finally:
            if stream is not None:
                stream.reset()
            if self._stream is stream:
                self._stream = None

    async def _read(self, data: bytes) -> None:
        envelope = open_envelope(data)
        if envelope.seq <= self._events.log.end:
            return
        self._unacknowledged_bytes += len(data)
        overruns = self._overruns.count
        logged: tuple[LoggedMessage, ...] = ()
        try:
            with self._overruns.section("a kernel's message"):
                message = read(envelope)
                logged = self._events.redacted(message)
        except TooMuchWork as exc:
            self._overruns.note(exc, data)
            message = set_aside(envelope)
            logged = self._events.redacted(message)
        finally:  # whatever comes of it, it has been read
            self._events.log.append(logged, envelope.seq)
        self._take(message)
        if self._unacknowledged_bytes >= KEEP_BYTES or self._overruns.count > overruns:
            await self._keep()

    async def acknowledge(self, seq: int) -> None:
        """Let the supervisor forget all up to the message of this number."""
        stream = self._stream
        self._unacknowledged_bytes = 0
        if seq <= self._acknowledged or stream is None:
            return
        self._acknowledged = seq
        try:
            await stream.send_json({"ack": seq})
        except SandboxError:
            return  # the next link begins after the last message anyhow

    async def send(self, request: bytes) -> None:
        """Send a request to the kernel.

        Raises:
            LinkLost: There is no link, or it ended.
        """
        if self._stream is None:
            raise no_link()
        await self._stream.send(request, wire.KERNEL)

    async def start(self, name: str, branch_of: str = "", *, reseed: bool = True) -> int:
        """Have the kernel started, of a kernelspec or as a branch of another one, and return the
        epoch that it is in.

        Raises:
            SandboxError: It cannot be, or that is not known.
        """
        if not branch_of:
            return epoch_of(await self.call("kernel.start", name=name))
        asked = {"kernel_id": branch_of, "new_id": self._kernel_id, "reseed": reseed}
        return epoch_of(await self.link.call("kernel.branch", **asked))

    async def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """Have the supervisor do something with the kernel.

        Raises:
            LinkLost: There is no link, or it ended.
            SandboxError: The supervisor refuses, or does not answer.
        """
        return await self.link.call(op, kernel_id=self._kernel_id, **fields)
