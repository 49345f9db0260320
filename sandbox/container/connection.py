"""Keeping a link up: connect, and connect again when it is lost, until the container is gone."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskStatus

from sandbox.errorgroups import one_error
from sandbox.errors import EngineUnavailable, LinkLost, SandboxError, SessionLost
from sandbox.link.link import ByteStream, Link, OnOpen

FIRST_DELAY_S = 0.05
LONGEST_DELAY_S = 5.0
STABLE_S = 30.0
MAX_FAILURES = 8
CLOSE_TIMEOUT_S = 2.0
READY_TIMEOUT_S = 20.0

logger = logging.getLogger(__name__)


class Connection:
    """The link to one container, made again whenever it is lost.

    Args:
        attach: Called with each new link before it counts as up; an error it raises ends the link.
        is_new: Whether the container is new: then a first link that fails is not tried again.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[ByteStream]],
        attach: Callable[[Link], Awaitable[None]],
        *,
        on_open: OnOpen,
        is_new: bool,
    ) -> None:
        self._connect = connect
        self._attach = attach
        self._on_open = on_open
        self._is_new = is_new
        self._link: Link | None = None
        self._up = anyio.Event()
        self._down = anyio.Event()
        self.was_up = False
        """Whether it was ever up."""
        self.is_over = False
        """Whether the link will never be up again."""

    @property
    def is_up(self) -> bool:
        """Whether calls can be made now."""
        return self._link is not None and not self._link.is_closed and not self.is_over

    async def settled(self, timeout_s: float) -> bool:
        """Wait while a lost link is being made again; whether it is up, or over with it."""
        with anyio.move_on_after(timeout_s) as scope:
            if self._link is not None and self._link.is_closed:
                await self._down.wait()
            await self._up.wait()
        return not scope.cancelled_caught

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Keep the link up until cancelled; started once the first link is up.

        Raises:
            SessionLost: The container is gone, or its supervisor keeps breaking the link.
            SandboxError: The first link could not be made.
        """
        failures, delay_s = 0, FIRST_DELAY_S
        try:
            while True:
                began = time.monotonic()
                try:
                    await self._one_link(task_status)
                    error: SandboxError = LinkLost("The link ended.")
                except SandboxError as exc:
                    if isinstance(exc, SessionLost) or (self._is_new and not self.was_up):
                        raise
                    error = exc
                if time.monotonic() - began > STABLE_S:
                    failures, delay_s = 0, FIRST_DELAY_S
                # An engine that does not answer says nothing about the sandbox: keep trying.
                if not isinstance(error, EngineUnavailable):
                    failures += 1
                if failures > MAX_FAILURES:
                    raise SessionLost(
                        f"The sandbox's supervisor could not be reached, {failures} times in a row."
                    ) from error
                logger.info("link: %s", error)
                await anyio.sleep(delay_s)
                delay_s = min(2 * delay_s, LONGEST_DELAY_S)
        finally:
            self.is_over = True
            self._up.set()  # nobody shall wait any longer

    async def _one_link(self, task_status: TaskStatus[None]) -> None:
        io = await self._connect()
        link = Link(io, initiator=True, hello={}, on_open=self._on_open)
        async with one_error() as tasks:
            tasks.start_soon(link.run)
            try:
                await self._get_ready(link)
                self._link, self._down = link, anyio.Event()
                self._up.set()
                if not self.was_up:
                    self.was_up = True
                    task_status.started()
                await link.wait_closed()
                if link.error is not None:
                    raise link.error
            finally:
                self._up = anyio.Event()
                self._down.set()
                with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                    await link.aclose()

    async def _get_ready(self, link: Link) -> None:
        """Bounded, for a supervisor may be silent on purpose."""
        try:
            with anyio.fail_after(READY_TIMEOUT_S):
                await link.greeting()
                await self._attach(link)
        except TimeoutError as exc:
            raise LinkLost(
                f"The sandbox's supervisor did not answer within {READY_TIMEOUT_S:g} s."
            ) from exc
