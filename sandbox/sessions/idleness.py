"""Whether anything goes on in a session, and freezing it when nothing does.

A session that nobody has used for a while is looked at: whether something runs over its link, who
has its notebooks open, and whether anything in its container would do something by itself. The
last is the supervisor's word, so it is not believed where it matters: whoever lies there keeps its
own container running, or has its own container stopped until it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import anyio
from pydantic import Field

from sandbox.answers import Answer, parse
from sandbox.container.sandbox import Sandbox
from sandbox.errors import SandboxError
from sandbox.link.link import Link, printable
from sandbox.sessions.lease import Lease
from sandbox.sessions.livenotebooks import SessionNotebooks

FREEZABLE = ("runc",)
"""What runs containers that can be frozen. gVisor stops them too, but one that is stopped cannot be
removed, and what goes on inside cannot be seen."""
AGAIN_SOONEST_S, AGAIN_S = 10.0, 60.0
"""How long after a look that found something the next one follows: as long as the policy waits for
the first, between these."""
ANSWER_TIMEOUT_S = 5.0
MAX_TOLD = 8
MAX_CHARS = 160
_WORDS = {
    "egress": "a connection to the network is open",
    "process.run": "a program runs",
    **dict.fromkeys(("file.read", "file.write"), "a file is carried"),
}
"""Operations of the link that last, in words."""

logger = logging.getLogger(__name__)


class Awake(Answer):
    """What a supervisor says that would go on by itself."""

    awake: Annotated[tuple[str, ...], Field(strict=False, max_length=64)]


class Idleness:
    """Freezes the sandbox of one session when nothing goes on there.

    Args:
        shown: Takes secrets out of what comes from inside.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        lease: Lease,
        notebooks: SessionNotebooks,
        shown: Callable[[str], str],
    ) -> None:
        self._sandbox = sandbox
        self._lease = lease
        self._notebooks = notebooks
        self._shown = shown
        self._again_at = 0.0
        self._found: tuple[float, tuple[str, ...]] = (0.0, ())

    @property
    def frozen_since(self) -> float | None:
        """Unix time since which its container is frozen; None while it runs."""
        return self._sandbox.freezer.frozen_since

    @property
    def awake_because(self) -> tuple[str, ...]:
        """What kept it from being frozen when that was looked at last, unless it was used since."""
        looked_at, found = self._found
        return found if self._lease.last_used < looked_at else ()

    def facts(self) -> dict[str, Any]:
        """What a ``SessionInfo`` says of it."""
        return {"frozen_since": self.frozen_since, "awake_because": self.awake_because}

    @property
    def is_due(self) -> bool:
        """Whether it was not used for so long that it may be frozen, and is to be looked at."""
        freeze_s, now = self._sandbox.policy.limits.freeze_s, self._lease.clock()
        return (
            freeze_s > 0
            and self._sandbox.spec.runtime in FREEZABLE
            and self.frozen_since is None
            and now >= self._again_at
            and self._sandbox.is_up
            and now - self._lease.last_used >= freeze_s
        )

    async def freeze(self) -> None:
        """Look, and freeze it if nothing goes on."""
        freeze_s = self._sandbox.policy.limits.freeze_s
        self._again_at = self._lease.clock() + min(AGAIN_S, max(freeze_s, AGAIN_SOONEST_S))
        used_at, link = self._lease.last_used, self._sandbox.link
        if link is None:
            return
        try:
            found = await self._going_on(link)
            if not found:
                may = partial(self._may_be_frozen, link, used_at)
                if await self._sandbox.freezer.freeze(may):
                    logger.debug("sandbox %s is frozen", self._sandbox.identity.sandbox_id)
                    self._again_at = 0.0
                else:
                    found = self._told([f"{op} has just begun" for op in link.going_on])
        except SandboxError as exc:
            found = (f"it could not be frozen: {exc.message}"[:MAX_CHARS],)
        self._found = (self._lease.clock(), found)

    def _may_be_frozen(self, link: Link, used_at: float) -> bool:
        """Whether nothing has begun since it was looked at."""
        return self._sandbox.is_up and not link.going_on and self._lease.last_used == used_at

    async def _going_on(self, link: Link) -> tuple[str, ...]:
        found = [
            f"the notebook {notebook.path!r} is open"
            for notebook in self._notebooks.opened
            if notebook.is_used
        ]
        found += [_WORDS.get(op, f"{op} goes on") for op in sorted(set(link.going_on))]
        if not found:
            with anyio.move_on_after(ANSWER_TIMEOUT_S) as scope:
                found = list(parse(Awake, await link.call("activity")).awake)
            if scope.cancelled_caught:
                found = ["the supervisor did not say what goes on"]
        return self._told(found)

    def _told(self, found: Sequence[str]) -> tuple[str, ...]:
        shown = (self._shown(each).replace("\n", " ") for each in found[:MAX_TOLD])
        return tuple(printable(each, MAX_CHARS)[:MAX_CHARS] for each in shown)
