"""A kernel's log of messages, read over one link after the other."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from sandbox import wire
from sandbox.errors import LinkLost, ProtocolError, SandboxError
from sandbox.kernels.messages import KernelMessage, read
from sandbox.link import Link, Stream

KEEP_BYTES = 8 * 1024 * 1024
"""Messages are acknowledged at the latest after this many bytes; the log holds four times that."""

logger = logging.getLogger(__name__)


class KernelLog:
    """Reads each message of a kernel once, whatever happens to links, and sends it requests.

    Args:
        kernel_id: Whose log.
        take: Called with each message, in order.
        keep: Called when much has come; it must acknowledge.
    """

    def __init__(
        self,
        kernel_id: str,
        take: Callable[[KernelMessage], None],
        keep: Callable[[], Awaitable[None]],
    ) -> None:
        self.seq = 0
        """The number of the last message read."""
        self._kernel_id = kernel_id
        self._take = take
        self._keep = keep
        self._link: Link | None = None
        self._stream: Stream | None = None
        self._acknowledged = 0
        self._unacknowledged_bytes = 0

    @property
    def is_attached(self) -> bool:
        """Whether messages can come and requests can go."""
        return self._stream is not None

    @property
    def link(self) -> Link | None:
        """The link in use, which may have ended."""
        return self._link

    def use(self, link: Link) -> None:
        """Use this link for calls; :meth:`pump` reads over it."""
        self._link = link

    async def pump(self, link: Link, attached: Callable[[], Awaitable[None]]) -> None:
        """Read the log over a link until that ends.

        Args:
            link: The link.
            attached: Called once requests can be sent.
        """
        stream: Stream | None = None
        try:
            stream = link.open("kernel.attach", kernel_id=self._kernel_id, after=self.seq)
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
        message = read(data)
        if message.seq <= self.seq:
            return
        self.seq = message.seq
        self._unacknowledged_bytes += message.size
        self._take(message)
        if self._unacknowledged_bytes >= KEEP_BYTES:
            await self._keep()

    async def acknowledge(self) -> None:
        """Let the supervisor forget all that was read so far."""
        seq, stream = self.seq, self._stream
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

    async def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """Have the supervisor do something with the kernel.

        Raises:
            LinkLost: There is no link, or it ended.
            SandboxError: The supervisor refuses, or does not answer.
        """
        if self._link is None:
            raise no_link()
        return await self._link.call(op, kernel_id=self._kernel_id, **fields)


def no_link() -> LinkLost:
    """The error for a session whose link is down at the moment."""
    return LinkLost("There is no link to the sandbox at the moment.", remedy="Try again.")
