"""From a session that is to be to one that lives: in a sandbox that is ready, or in a new one."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio

from sandbox.container.checks import NotProved
from sandbox.errors import (
    InfrastructureError,
    LinkLost,
    SandboxError,
    SessionLost,
)
from sandbox.policy import Policy
from sandbox.sessions.making import Maker
from sandbox.sessions.models import Caller
from sandbox.sessions.notices import notice
from sandbox.sessions.opener import Opener
from sandbox.sessions.session import Session

OPEN_TIMEOUT_S = 60.0
MAX_READY_TRIED = 2
"""Sandboxes of the pool that an opening tries; after them it makes one."""

logger = logging.getLogger(__name__)


class Starter:
    """Has new sessions live.

    Args:
        begin: Has a session live in a task of its own; returns, once it is open, None, or why it
            could not be opened.
    """

    def __init__(
        self,
        opener: Opener,
        maker: Maker,
        begin: Callable[[Session], Awaitable[Exception | None]],
    ) -> None:
        self._opener = opener
        self._maker = maker
        self._begin = begin

    async def open(
        self,
        caller: Caller,
        policy: Policy,
        name: str = "",
        workspace: str = "",
        checkpoint: str = "",
        *,
        as_default: bool,
    ) -> Session:
        """A new session that is open: see :meth:`Opener.session`.

        Raises:
            SandboxError: It could not be opened; nothing is left of it.
        """
        ready_tried = 0
        while True:
            session = await self._opener.session(
                *(caller, policy, name, workspace),
                as_default=as_default,
                checkpoint=checkpoint,
                may_be_ready=ready_tried < MAX_READY_TRIED,
            )
            was_ready = session.sandbox.is_open
            try:
                await self.start(session, OPEN_TIMEOUT_S)
            except (LinkLost, SessionLost) as exc:
                if not was_ready:
                    raise
                ready_tried += 1
                logger.warning("a sandbox that was ready could not be claimed: %s", exc.message)
            except NotProved as exc:
                if not await self._maker.refused(session.sandbox, exc):
                    raise
                logger.warning(
                    "the policy %s permits another runtime than %s: %s",
                    *(policy.name, session.sandbox.spec.runtime, exc.message),
                )
            except SandboxError as exc:  # such as a broker's, which permits one runtime only
                exc.remedy = f"{self._maker.passed_over(session.sandbox)} {exc.remedy}".strip()
                raise
            else:
                session.hand_over()
                if passed_over := self._maker.passed_over(session.sandbox):
                    notice(passed_over)
                return session

    async def start(self, session: Session, timeout_s: float) -> None:
        """Have a session live.

        Raises:
            InfrastructureError: It was not open within that time.
            SandboxError: It could not be opened; nothing is left of it.
        """
        try:
            with anyio.fail_after(timeout_s):
                failure = await self._begin(session)
        except TimeoutError as exc:
            raise InfrastructureError(
                f"The session was not ready within {timeout_s:g} s; it was removed.",
                remedy="The engine may be overloaded: try again later.",
            ) from exc
        finally:
            if not session.was_opened:
                self._opener.withdraw(session)
        if failure is not None:
            raise failure
