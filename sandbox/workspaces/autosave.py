"""Keeping a session's workspace: read in at its beginning, saved as it is used and at its end."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime

import anyio
import anyio.to_thread

from sandbox.errors import InvalidRequest, LinkLost, SandboxError
from sandbox.link.link import Link
from sandbox.policy import WorkspacePolicy
from sandbox.policy.units import MIB
from sandbox.workspaces.archive import pack, unpack
from sandbox.workspaces.holding import PIECE_BYTES, Draft, Held
from sandbox.workspaces.models import Kept

CHECKPOINT_S = 10.0
"""The shortest time between the end of one save and the next."""
COST_FACTOR = 20.0
"""A save that takes a second is followed by none for twenty."""
SAVE_TIMEOUT_S = 30.0
"""What a save may take whatever its size, and beside that a second for each ``SLOW_BYTES``."""
SLOW_BYTES = 16 * MIB
RESTORE_TIMEOUT_S = 45.0
ENTRY_BYTES = 2048
"""What an archive may take for each inode, beside the content: two blocks, and a name."""

logger = logging.getLogger(__name__)


class Autosave:
    """Keeps the workspace of one session."""

    def __init__(
        self,
        held: Held,
        policy: WorkspacePolicy,
        clock: Callable[[], float],
        last_activity: Callable[[], float],
    ) -> None:
        self.name = held.name
        self.problem = ""
        """Why the last save came to nothing; empty when it did not."""
        self._held = held
        self._clock = clock
        self._last_activity = last_activity
        self._limit_bytes = limit_bytes(policy)
        self.patience_s = SAVE_TIMEOUT_S + self._limit_bytes / SLOW_BYTES
        """The longest that a save may take."""
        self._link: Link | None = None
        self._interval_s = CHECKPOINT_S
        self._began_at = clock()
        self._saving = anyio.Lock()
        self._checkpoint: anyio.CancelScope | None = None
        self.kept: Kept | None = None
        with suppress(SandboxError):
            self.kept = held.kept()

    @property
    def left_behind(self) -> str:
        """What is kept when nothing more is saved, in words."""
        return in_words(self.name, self.kept)

    async def attach(self, link: Link) -> None:
        """Use this link from now on."""
        self._link = link

    async def restore(self) -> None:
        """Read in what is kept, before anything else runs.

        Raises:
            InvalidRequest: It does not fit into a workspace of this policy.
            InfrastructureError: It is damaged, or cannot be read in.
        """
        kept = self.kept = self._held.kept()
        if kept is None or self._link is None:
            return
        try:
            with anyio.fail_after(RESTORE_TIMEOUT_S):
                await unpack(self._link, self._pieces(kept))
        except TimeoutError as exc:
            raise _too_large(self.name, f"it took more than {RESTORE_TIMEOUT_S:g} s") from exc
        except SandboxError as exc:
            if exc.code == "file_error":
                raise _too_large(self.name, exc.message) from exc
            raise
        self._began_at = self._clock()

    async def run(self) -> None:
        """Save again and again while the session is used, until cancelled."""
        while True:
            await anyio.sleep(self._interval_s)
            if self._last_activity() <= self._began_at:
                continue
            with anyio.CancelScope() as self._checkpoint:
                await self._save()

    async def save_last(self) -> None:
        """Save at the session's end, within ``patience_s``; a checkpoint is given up for it."""
        if self._checkpoint is not None:
            self._checkpoint.cancel()
        await self._save()

    async def _save(self) -> None:
        async with self._saving:
            began = time.monotonic()
            self._began_at = self._clock()
            try:
                with anyio.fail_after(self.patience_s):
                    self.kept = await self._saved()
                self.problem = ""
            except TimeoutError:
                self.problem = f"it was not saved within {self.patience_s:.0f} s"
            except SandboxError as exc:
                self.problem = exc.message
            self._interval_s = max(CHECKPOINT_S, COST_FACTOR * (time.monotonic() - began))
            if self.problem:
                logger.warning("workspace %s: %s", self.name, self.problem)

    async def _saved(self) -> Kept:
        if self._link is None:
            raise LinkLost("there is no connection to the session")
        saved_at = self._clock()
        with self._held.draft(self._limit_bytes) as draft:
            writer = _Writer(draft)
            left_out = await pack(self._link, writer.take)
            await writer.flush()
            kept = await anyio.to_thread.run_sync(draft.save, saved_at)
        if left_out:
            logger.info("workspace %s: not all is kept: %s", self.name, left_out[0])
        return kept

    async def _pieces(self, kept: Kept) -> AsyncIterator[bytes]:
        pieces = self._held.pieces(kept)
        while piece := await anyio.to_thread.run_sync(next, pieces, b""):
            yield piece

    def close(self, *, is_kept: bool) -> None:
        """Let go of the workspace, or leave it to a session that outlives this controller."""
        if is_kept:
            self._held.close()
        else:
            self._held.release()


class _Writer:
    """Puts pieces together, so that few threads write many of them."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._waiting = bytearray()

    async def take(self, data: bytes) -> None:
        self._waiting += data
        if len(self._waiting) >= PIECE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        data, self._waiting = bytes(self._waiting), bytearray()
        await anyio.to_thread.run_sync(self._draft.write, data)


def limit_bytes(policy: WorkspacePolicy) -> int:
    """The most that the archive of a workspace may be."""
    return policy.size_bytes + policy.inodes * ENTRY_BYTES


def check_fits(name: str, kept: Kept | None, policy: WorkspacePolicy) -> None:
    """Refuse a workspace that cannot fit, before anything is made for it.

    Raises:
        InvalidRequest: It is larger than the policy's may be.
    """
    if kept is not None and kept.size_bytes > limit_bytes(policy):
        raise _too_large(name, f"it takes {kept.size_bytes} bytes")


def in_words(name: str, kept: Kept | None) -> str:
    """What is kept of a workspace, in words."""
    if kept is None:
        return f"nothing of its workspace {name!r} is kept"
    when = datetime.fromtimestamp(kept.saved_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"its workspace {name!r} is kept as it was at {when}"


def _too_large(name: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"The workspace {name!r} does not fit into one of this policy: {why}.",
        remedy="Open it under the policy that it was made with, or a larger one.",
    )
