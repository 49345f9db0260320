"""One notebook as a shared document: read as a value, edited as values, shared with its peers.

All of it happens on the event loop, a step at a time: what an edit sees is what it changes. A
change is in the journal before any peer or caller hears of it. Whatever cannot be kept, because the
journal cannot take it or because it is none that a notebook may have, is undone by making the
document anew of what the journal has.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import anyio.lowlevel
from anyio import to_thread
from pycrdt import Map

from sandbox.collaboration.authors import Author
from sandbox.collaboration.peers import (
    MAX_UPDATE_BYTES,
    STEP1,
    Peer,
    awareness_message,
    sync_message,
)
from sandbox.collaboration.presence import Presence
from sandbox.collaboration.replica import Replica
from sandbox.collaboration.updates import Checked, Missing, check_update, read_state
from sandbox.collaboration.ycells import cell_by_cell, check_change, check_parts, storable
from sandbox.collaboration.yediting import change_cell, change_notebook
from sandbox.errors import Conflict, InvalidRequest, QuotaExceeded, SandboxError
from sandbox.notebooks.editing import Edited
from sandbox.notebooks.models import Cell, Notebook

MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
"""With what is remembered of what was deleted."""
MAX_PARTS = 2_000_000
"""What peers may put into a document as long as it is open, in items and JSON values."""
LARGE_PARTS, LARGE_CHARACTERS = 20_000, 64 * 1024
"""Of an update whose changes are not looked at one by one."""
IN_A_THREAD_BYTES = 64 * 1024
MAX_PEERS = 64
COMPACT_UPDATES = 1000
COMPACT_BYTES = 4 * 1024 * 1024
AT_ONCE_S = 0.005
"""How long a document is filled or read before others have their turn."""

logger = logging.getLogger(__name__)


class UpdateStore(Protocol):
    """Where the updates of one document are kept; each method raises InfrastructureError."""

    def load(self) -> Sequence[bytes]:
        """All that is kept, in its order."""
        ...

    def append(self, update: bytes) -> None:
        """Keep one more."""
        ...

    def replace(self, update: bytes) -> None:
        """Keep this one instead of all."""
        ...


class SharedDocument:
    """One document.

    Args:
        store: What it is made of, and where its changes go.
        on_change: Called after each change of its cells or metadata, whoever made it.
        clock: Seconds.
    """

    def __init__(
        self,
        store: UpdateStore,
        *,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.version = 0
        """Grows with each change of its cells or metadata."""
        self._store = store
        self._on_change = on_change
        self._clock = clock
        self._peers: list[Peer] = []
        self._replica: Replica | None = None
        self._is_closed = False
        self._parts = 0
        """The items and values that peers have put in."""
        self.presence = Presence(self._tell)
        self._load()

    def close(self) -> None:
        """Let go of it, with whoever is in it; harmless when done already."""
        self._is_closed = True
        self.cut_all("The notebook was closed.")
        self._drop()

    # --- as a value

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever put into it."""
        return not self._count

    @property
    def size_bytes(self) -> int:
        """About what it takes in the journal."""
        return self._bytes

    def read(self) -> Notebook:
        """The notebook as it is now; what did not change since is not read again."""
        return self._now().read()

    def edit(self, change: Callable[[Notebook], Edited]) -> Edited:
        """Change it as a pure function says.

        Raises:
            NotFound, InvalidRequest, QuotaExceeded: As the change raises, or it is too large.
            Conflict: The same, or it changes too much at once.
            InfrastructureError: It cannot be kept; nothing was changed.
        """
        before = self.read()
        edited = change(before)
        after = edited.notebook
        if after is before:
            return edited
        self._check_room(0)
        check_change(before, after)
        with self._changing() as now:
            change_notebook(now.ycells, now.ymeta, before, after)
        return edited

    def change_cell(
        self, cell_id: str, change: Callable[[Cell], Cell], execution_state: str = ""
    ) -> Cell | None:
        """Change one cell, and what JupyterLab shows of its execution; None where it is gone.

        Raises:
            InfrastructureError: It cannot be kept; nothing was changed.
        """
        cells = self.read().cells
        index = next((at for at, cell in enumerate(cells) if cell.id == cell_id), None)
        if index is None:
            return None
        before = cells[index]
        after = change(before)
        with self._changing() as now:
            ycell = now.ycells[index]
            change_cell(ycell, before, after)
            if execution_state and ycell.get("execution_state") != execution_state:
                ycell["execution_state"] = execution_state
        return after

    async def fill(self, notebook: Notebook) -> None:
        """Put a notebook into an empty document, letting others have their turn.

        Raises:
            InvalidRequest: A part of it would take too long at once.
        """
        await to_thread.run_sync(check_parts, notebook)
        with self._changing() as now:
            now.ymeta["nbformat"], now.ymeta["nbformat_minor"] = 4, 5
            now.ymeta["metadata"] = Map(storable(notebook.metadata))
        steps, is_filled = cell_by_cell(notebook.cells), False
        while not is_filled:
            with self._changing() as now:
                until = time.perf_counter() + AT_ONCE_S
                is_filled = not any(put(now.ycells) or time.perf_counter() > until for put in steps)
            await anyio.lowlevel.checkpoint()
        self._now().remember(0, notebook.cells)
        self._now().ids_changed = False

    async def warm(self) -> None:
        """Read all cells of a document that was loaded, letting others have their turn."""
        at, until = 0, time.perf_counter() + AT_ONCE_S
        while at < self._now().count:
            self._now().read_cells(at, at + 1)
            at += 1
            if time.perf_counter() > until:
                await anyio.lowlevel.checkpoint()
                until = time.perf_counter() + AT_ONCE_S
        self._mend_ids()

    def tell_state(self, **values: Any) -> None:
        """Say something in the document's state, which its peers see and no file has."""
        ystate = self._now().ystate
        changed = {key: value for key, value in values.items() if ystate.get(key) != value}
        if changed:
            with self._changing() as now:
                for key, value in changed.items():
                    now.ystate[key] = value

    def tell_saved(self) -> None:
        """Have its peers show it as saved, however often they were told so before."""
        if self._peers:
            with self._changing() as now:
                now.ystate["dirty"] = False

    # --- with peers

    @property
    def peers(self) -> Sequence[Peer]:
        """Who is in it."""
        return tuple(self._peers)

    def join(self, author: Author, *, may_write: bool = True) -> Peer:
        """Let somebody in, until it leaves or is cut off: see :mod:`sandbox.collaboration.peers`.

        Raises:
            QuotaExceeded: There are as many as may be.
        """
        if len(self._peers) >= MAX_PEERS:
            raise QuotaExceeded(
                f"The notebook is open at {MAX_PEERS} peers, the most there can be."
            )
        now = self._now()
        peer = Peer(self, author, may_write=may_write, clock=self._clock)
        self._peers.append(peer)
        if may_write:  # a reader is not asked for what it may not give
            peer.offer(sync_message(STEP1, now.doc.get_state()))
        if others := self.presence.all():
            peer.offer(awareness_message(others))
        return peer

    def cut_all(self, reason: str) -> None:
        """Cut off all peers."""
        for peer in self.peers:
            peer.leave(reason)

    def update_since(self, state: bytes) -> bytes:
        """What somebody with this state vector lacks."""
        read_state(state)
        return self._now().doc.get_update(state)

    async def take_update(self, update: bytes, sender: Peer) -> None:
        """Take a peer's update, have it in the journal and give it to the others."""
        if len(update) > MAX_UPDATE_BYTES:
            raise QuotaExceeded(f"An update has at most {MAX_UPDATE_BYTES:,} bytes.")
        self._check_room(len(update))
        try:
            checked = await self._checked(update, sender)
        except Missing:
            sender.offer(sync_message(STEP1, self._now().doc.get_state()))
            return
        if checked.is_new and self._parts + checked.parts > MAX_PARTS:
            raise QuotaExceeded(
                "So much was put into the notebook that it takes too much memory.",
                remedy="Close it everywhere and open it again.",
            )
        is_large = checked.parts > LARGE_PARTS or checked.characters > LARGE_CHARACTERS
        try:
            with self._changing(sender, types=checked.types) as now:
                now.apply(update, is_large=is_large)
        except SandboxError as exc:
            sender.leave(exc.message)
            raise
        except Exception as exc:  # whatever the library fails with, looking at what it has made
            logger.warning("an update of a peer made no document: %r", exc)
            sender.leave("Its update makes no notebook.")
            raise InvalidRequest("The update makes no notebook.") from exc
        self._parts += checked.parts if checked.is_new else 0
        if self._now().ids_changed:
            self._mend_ids()

    async def _checked(self, update: bytes, sender: Peer) -> Checked:
        while True:
            now = self._now()
            state = read_state(now.doc.get_state())
            look = partial(check_update, update, state, self._reserved(sender, now.doc.client_id))
            if len(update) < IN_A_THREAD_BYTES:
                return look()
            checked = await to_thread.run_sync(look)
            if now is self._replica:
                return checked

    def take_awareness(self, update: bytes, sender: Peer) -> None:
        """Take what a peer says of itself and give it to the others."""
        self.presence.take(update, sender)

    def left(self, peer: Peer) -> None:
        """A peer has left."""
        if peer in self._peers:
            self._peers.remove(peer)
        self.presence.left(peer)

    # --- inside

    def _reserved(self, sender: Peer, own_client: int) -> set[int]:
        """The clients that others make their changes as. One who comes again meets itself, until
        the connection that it lost is noticed to be lost."""
        others = (each for each in self._peers if each.author.key != sender.author.key)
        return {own_client, *(client for each in others for client in each.clients)}

    def _now(self) -> Replica:
        """The document; made anew where that could not be done when it had to be."""
        if self._is_closed:
            raise Conflict("The notebook was closed meanwhile.", remedy="Open it again.")
        return self._replica or self._load()

    def _load(self) -> Replica:
        updates = self._store.load()
        self._count, self._bytes = len(updates), sum(map(len, updates))
        self._kept_bytes = self._bytes
        self.version += 1
        self._replica = Replica(updates)
        return self._replica

    def _drop(self) -> None:
        if self._replica is not None:
            self._replica.close()
            self._replica = None

    @contextmanager
    def _changing(self, sender: Peer | None = None, *, types: int = 0) -> Generator[Replica]:
        """Change the document in one transaction, then keep and tell what came of it; where that
        fails, it is as before."""
        now = self._now()
        now.begin()
        try:
            with now.doc.transaction():
                yield now
            if sender is not None:
                now.check_shape(types)
            made = now.taken()
            for update in made:
                self._store.append(update)
        except BaseException:
            self._drop()
            self._now()
            raise
        for update in made:
            self._count += 1
            self._bytes += len(update)
            for peer in self.peers:
                if peer is not sender:
                    peer.offer_update(update)
        if self._count > COMPACT_UPDATES or self._bytes > 2 * self._kept_bytes + COMPACT_BYTES:
            try:
                self._compact(now)
            except SandboxError as exc:  # it is tried again with the next change
                logger.warning("a notebook's updates cannot be made one: %s", exc)
        if now.has_changed:
            now.has_changed = False
            self.version += 1
            self._on_change()

    def _compact(self, now: Replica) -> None:
        whole = now.doc.get_update()
        self._store.replace(whole)
        self._count, self._bytes, self._kept_bytes = 1, len(whole), len(whole)

    def _check_room(self, more: int) -> None:
        now = self._now()
        if self._bytes + more > MAX_DOCUMENT_BYTES:
            self._compact(now)
            if self._bytes + more > MAX_DOCUMENT_BYTES:
                raise QuotaExceeded(
                    f"The notebook has {self._bytes:,} bytes with what is remembered of its past; "
                    f"{MAX_DOCUMENT_BYTES:,} are the most.",
                    remedy="Clear the outputs of its largest cells, or copy it to a new file.",
                )

    def _mend_ids(self) -> None:
        with self._changing() as now:
            now.mend()
        now.ids_changed = False

    def _tell(self, awareness: bytes, but: Peer | None) -> None:
        for peer in self.peers:
            if peer is not but:
                peer.offer(awareness_message(awareness))
