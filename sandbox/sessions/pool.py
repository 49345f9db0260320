"""Sandboxes that are ready before anybody asks for one.

Each is opened and proved like any other, has its first kernel running, and is nobody's: nothing
leaves it, and no claim names it, so a controller that dies leaves it to be removed. Whoever opens
a session gets one if it still is what would be made now. It serves that session and no other.

How many there are follows demand, between the ``pool.min`` and ``pool.max`` of their policy: each
opening asks for one more, and what was asked for is forgotten by half every few minutes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from contextlib import suppress

import anyio
from anyio.abc import TaskGroup

from sandbox.bulkheads.shares import Owner
from sandbox.container.checks import NotProved
from sandbox.container.sandbox import Sandbox
from sandbox.errorgroups import one_error
from sandbox.errors import SandboxError
from sandbox.kernels.kernels import DEFAULT_KERNEL_ID, DEFAULT_KERNEL_NAME
from sandbox.policy import Policy, PolicySet
from sandbox.sessions.capacity import IDLE_BYTES
from sandbox.sessions.making import Maker, Surroundings
from sandbox.sessions.poolinfo import ShelfInfo
from sandbox.sessions.services import SessionServices
from sandbox.sessions.shelf import Shelf

FILL_AT_ONCE = 2
"""Sandboxes that are made for the pool at the same time: callers' own openings come first."""
LOOK_EVERY_S = 5.0
AFTER_S = 0.03
"""From somebody's asking until another one is made: who has asked gets theirs first."""
QUIET_S = 0.2
"""While somebody asks again within this time, none is made as long as enough are ready."""
PUT_OFF_S = 1.5
"""And not for longer than this."""
MAX_AGE_S = 3600.0
"""An older one is replaced."""
KERNEL_TIMEOUT_S = 30.0
LONGEST_PAUSE_S = 60.0
"""After failures in a row; the first is followed by a second's."""
MEMORY_SHARE = 4
"""All that wait may use this part of the engine's memory: one in so many bytes."""

logger = logging.getLogger(__name__)


class Pool:
    """The sandboxes of one controller that wait for a session; :meth:`run` keeps them."""

    def __init__(self, services: SessionServices, maker: Maker, policies: PolicySet) -> None:
        self._services = services
        self._maker = maker
        self._policies = policies
        self._shelves: dict[str, Shelf] = {}
        """By the digest of their policies."""
        self._waiting: dict[str, Sandbox] = {}
        """Those that are nobody's, from before they are made until they are claimed or removed, by
        their ids."""
        self._filling = anyio.CapacityLimiter(FILL_AT_ONCE)
        self._changed = anyio.Event()
        self._asked_at = 0.0
        """Monotonic time at which anybody last wanted one."""

    # --- what there is

    def has(self, sandbox_id: str) -> bool:
        """Whether a sandbox is the pool's: being made, ready, or being removed."""
        return sandbox_id in self._waiting

    def has_uid(self, uid: int) -> bool:
        """Whether one of the pool's has that uid."""
        return any(sandbox.identity.uid == uid for sandbox in self._waiting.values())

    def infos(self) -> list[ShelfInfo]:
        """What there is for each policy that keeps some, or has some."""
        now = time.monotonic()
        return [shelf.info(now) for shelf in self._shelves.values()]

    def keeps(self, policy: Policy) -> bool:
        """Whether sandboxes of a policy are kept ready, as far as there is demand."""
        return self._services.pool and policy.pool.max > 0

    # --- for whoever opens a session

    def take(self, policy: Policy, around: Surroundings) -> Sandbox | None:
        """One that is ready, for good; None where there is none. Never waits.

        Raises:
            SandboxError: None may be made of that policy now.
        """
        if not self.keeps(policy):
            return None
        shelf = self._shelf(policy)
        self._asked_at = time.monotonic()
        shelf.asked(self._asked_at)
        self._wake()
        while shelf.ready:
            sandbox = shelf.ready.popleft()
            if sandbox.is_up and self._maker.is_current(sandbox, policy, around):
                del self._waiting[sandbox.identity.sandbox_id]
                shelf.given += 1
                return sandbox
            sandbox.let_go()
        shelf.missed += 1
        return None

    def discard(self, sandbox: Sandbox) -> None:
        """Have one removed that was taken and is not wanted after all."""
        self._waiting[sandbox.identity.sandbox_id] = sandbox
        sandbox.let_go()

    # --- its life

    async def run(self) -> None:
        """Keep sandboxes ready until cancelled; then what nobody has claimed is removed."""
        if not self._services.pool:
            return
        async with anyio.create_task_group() as tasks:
            self._put_up(self._in_order_of_use())
            while True:
                self._changed = anyio.Event()
                try:
                    await self._tend(tasks)
                except SandboxError as exc:  # the policies or the engine; asked again soon
                    logger.warning("the pool: %s", exc.message)
                with anyio.move_on_after(LOOK_EVERY_S):
                    await self._changed.wait()
                    await self._let_callers_go_first()

    async def _let_callers_go_first(self) -> None:
        """Making takes the machine from those who open sessions: wait for the end of a rush."""
        await anyio.sleep(AFTER_S)
        with anyio.move_on_after(PUT_OFF_S):
            while not any(shelf.is_low(time.monotonic()) for shelf in self._shelves.values()):
                quiet_s = time.monotonic() - self._asked_at
                if quiet_s >= QUIET_S:
                    return
                await anyio.sleep(QUIET_S - quiet_s)

    def _wake(self) -> None:
        self._changed.set()

    def _shelf(self, policy: Policy) -> Shelf:
        shelf = self._shelves.get(policy.digest)
        if shelf is None:
            shelf = self._shelves[policy.digest] = Shelf(policy)
        shelf.policy = policy  # its numbers are no part of the digest
        return shelf

    def _put_up(self, policies: Iterable[Policy]) -> None:
        for policy in policies:
            if self.keeps(policy):
                self._shelf(policy)

    def _in_order_of_use(self) -> list[Policy]:
        """The policies, those of the latest sessions first."""
        policies = [self._policies.get(name) for name in self._policies.names()]
        rank = {
            digest: number for number, digest in enumerate(self._services.journal.policies_used())
        }
        return sorted(policies, key=lambda policy: rank.get(policy.digest, len(rank)))

    async def _tend(self, tasks: TaskGroup) -> None:
        """Have what is too much, too old or no longer right removed, and what is missing made."""
        known = [self._policies.get(name) for name in self._policies.names()]
        current = {policy.digest: policy for policy in known}
        self._put_up(current.values())
        room = await self._room()
        now = time.monotonic()
        for digest, shelf in tuple(self._shelves.items()):
            policy = current.get(digest)
            target = shelf.target(now) if policy is not None and self.keeps(policy) else 0
            too_old = self._services.clock() - MAX_AGE_S
            for sandbox in tuple(shelf.ready):
                is_old = sandbox.identity.created_at < too_old
                if is_old or not sandbox.is_up or len(shelf.ready) > target:
                    shelf.ready.remove(sandbox)
                    sandbox.let_go()
            if policy is None and not shelf.there:
                del self._shelves[digest]
            while shelf.there < target and len(self._waiting) < room and now >= shelf.again_at:
                around = await self._maker.surroundings(shelf.policy)
                sandbox = self._maker.sandbox(shelf.policy, around)
                self._waiting[sandbox.identity.sandbox_id] = sandbox
                shelf.coming += 1
                tasks.start_soon(self._keep, sandbox, shelf)

    async def _room(self) -> int:
        """How many the engine's memory has room for."""
        engine = await self._services.engine.get()
        most = engine.memory_bytes // MEMORY_SHARE // IDLE_BYTES if engine.memory_bytes else 64
        more = self._services.capacity.room(engine)
        return most if more is None else min(most, len(self._waiting) + more)

    async def _keep(self, sandbox: Sandbox, shelf: Shelf) -> None:
        """The whole life of one: made, ready, and its link's until it is over, whosever it is."""
        sandbox_id = sandbox.identity.sandbox_id
        try:
            async with one_error() as tasks:
                try:
                    async with self._filling:
                        await sandbox.open(tasks, self._services.opening.place(Owner("")))
                        await _start_kernel(sandbox)
                finally:
                    shelf.coming -= 1
                shelf.made(sandbox)
                await sandbox.wait_over()
                if sandbox in shelf.ready:
                    shelf.failed("One was lost while it waited.", time.monotonic(), LONGEST_PAUSE_S)
        except Exception as exc:  # of one sandbox: the others are kept all the same
            if isinstance(exc, NotProved):
                with suppress(SandboxError):
                    await self._maker.refused(sandbox, exc)
            if self.has(sandbox_id):
                shelf.failed(_words(exc), time.monotonic(), LONGEST_PAUSE_S)
                logger.warning("the pool, policy %s: %s", shelf.policy.name, shelf.problem)
            else:
                logger.exception("sandbox %s", sandbox_id)
        finally:
            if self.has(sandbox_id):
                with suppress(ValueError):
                    shelf.ready.remove(sandbox)
                with anyio.CancelScope(shield=True):
                    await sandbox.remove()
                self._waiting.pop(sandbox_id, None)
            self._wake()


async def _start_kernel(sandbox: Sandbox) -> None:
    if sandbox.link is not None:
        with anyio.fail_after(KERNEL_TIMEOUT_S):
            await sandbox.link.call(
                "kernel.start", kernel_id=DEFAULT_KERNEL_ID, name=DEFAULT_KERNEL_NAME
            )


def _words(exc: Exception) -> str:
    return exc.message if isinstance(exc, SandboxError) else f"{type(exc).__name__}: {exc}"
