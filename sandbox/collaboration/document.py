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
from typing import Any, Protocol, cast

import anyio.lowlevel
from pycrdt import Array, Doc, Map

from sandbox.collaboration.authors import Author
from sandbox.collaboration.peers import (
    EMPTY_UPDATE,
    MAX_UPDATE_BYTES,
    STEP1,
    Peer,
    awareness_message,
    sync_message,
)
from sandbox.collaboration.presence import Presence
from sandbox.collaboration.updates import Missing, check_update, read_state
from sandbox.collaboration.ycells import made_cell, plain_value, read_cell, storable
from sandbox.collaboration.yediting import change_cell, change_notebook
from sandbox.errors import InvalidRequest, QuotaExceeded, SandboxError
from sandbox.notebooks.editing import Edited
from sandbox.notebooks.models import MAX_CELLS, Cell, Notebook, is_cell_id, new_cell_id

MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
"""With what is remembered of what was deleted."""
MAX_NESTED = 24
"""How deep maps and arrays may be in each other: a notebook's are at most five deep."""
MAX_PEERS = 64
COMPACT_UPDATES = 1000
COMPACT_BYTES = 4 * 1024 * 1024
FILLED_AT_ONCE = 20

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
        self.presence = Presence(self._tell, clock)
        self._observed: list[tuple[Any, Any]] = []
        self._load()

    def _load(self) -> None:
        self._let_go()
        self._doc = doc = Doc[Any]()
        self._ycells = cast("Array[Any]", doc.get("cells", type=Array))
        self._ymeta = cast("Map[Any]", doc.get("meta", type=Map))
        self._ystate = cast("Map[Any]", doc.get("state", type=Map))
        updates = self._store.load()
        with doc.transaction():
            for update in updates:
                doc.apply_update(update)
        self._count, self._bytes = len(updates), sum(map(len, updates))
        self._kept_bytes = self._bytes
        self._cells: list[Cell | None] = [None] * len(self._ycells)
        self._metadata: Any = None
        self._notebook: Notebook | None = None
        self._made: list[bytes] = []
        self._fresh: list[tuple[int, Any]] = []
        self._has_changed = False
        self._ids_changed = True
        self._observed = [
            (doc, doc.observe(lambda event: self._made.append(event.update))),
            (self._ycells, self._ycells.observe_deep(self._cells_changed)),
            (self._ymeta, self._ymeta.observe_deep(self._meta_changed)),
            (self._ystate, self._ystate.observe_deep(self._state_changed)),
        ]
        self.version += 1

    def close(self) -> None:
        """Let go of it, with whoever is in it; harmless when done already."""
        self.cut_all("The notebook was closed.")
        self._let_go()

    def _let_go(self) -> None:
        """Stop to observe, for what is observed is never collected."""
        for observed, subscription in self._observed:
            observed.unobserve(subscription)
        self._observed = []

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
        if self._notebook is None:
            with self._doc.transaction():
                if self._metadata is None:
                    found = plain_value(self._ymeta.get("metadata"))
                    self._metadata = found if isinstance(found, dict) else {}
                cells = self._cells
                for at, cell in enumerate(cells):
                    if cell is None:
                        cells[at] = read_cell(self._ycells[at])
            self._notebook = Notebook(tuple(cast("list[Cell]", cells)), self._metadata)
        return self._notebook

    def edit(self, change: Callable[[Notebook], Edited]) -> Edited:
        """Change it as a pure function says.

        Raises:
            NotFound, InvalidRequest, QuotaExceeded: As the change raises, or it is too large.
            InfrastructureError: It cannot be kept; nothing was changed.
        """
        before = self.read()
        edited = change(before)
        after = edited.notebook
        if after is before:
            return edited
        self._check_room(0)
        with self._changing():
            change_notebook(self._ycells, self._ymeta, before, after)
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
        with self._changing():
            ycell = self._ycells[index]
            change_cell(ycell, before, after)
            if execution_state and ycell.get("execution_state") != execution_state:
                ycell["execution_state"] = execution_state
        return after

    async def fill(self, notebook: Notebook) -> None:
        """Put a notebook into an empty document, letting others have their turn."""
        with self._changing():
            self._ymeta["nbformat"], self._ymeta["nbformat_minor"] = 4, 5
            self._ymeta["metadata"] = Map(storable(notebook.metadata))
        for start in range(0, len(notebook.cells), FILLED_AT_ONCE):
            some = notebook.cells[start : start + FILLED_AT_ONCE]
            with self._changing():
                self._ycells.extend([made_cell(cell) for cell in some])
            self._cells[start : start + len(some)] = some
            await anyio.lowlevel.checkpoint()
        self._ids_changed = False

    async def warm(self) -> None:
        """Read all cells of a document that was loaded, letting others have their turn."""
        for start in range(0, len(self._cells), FILLED_AT_ONCE):
            with self._doc.transaction():
                for at in range(start, min(start + FILLED_AT_ONCE, len(self._cells))):
                    if self._cells[at] is None:
                        self._cells[at] = read_cell(self._ycells[at])
            await anyio.lowlevel.checkpoint()
        self._mend_ids()

    def tell_state(self, **values: Any) -> None:
        """Say something in the document's state, which its peers see and no file has."""
        changed = {key: value for key, value in values.items() if self._ystate.get(key) != value}
        if changed:
            with self._changing():
                for key, value in changed.items():
                    self._ystate[key] = value

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
        peer = Peer(self, author, may_write=may_write, clock=self._clock)
        self._peers.append(peer)
        peer.offer(sync_message(STEP1, self._doc.get_state()))
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
        return self._doc.get_update(state)

    async def take_update(self, update: bytes, sender: Peer) -> None:
        """Take a peer's update, have it in the journal and give it to the others."""
        if len(update) > MAX_UPDATE_BYTES:
            raise QuotaExceeded(f"An update has at most {MAX_UPDATE_BYTES:,} bytes.")
        self._check_room(len(update))
        try:
            state = read_state(self._doc.get_state())
            types = check_update(update, state, self._doc.client_id)
        except Missing:
            sender.offer(sync_message(STEP1, self._doc.get_state()))
            return
        self._fresh.clear()
        try:
            with self._changing(sender, types=types):
                self._apply(update)
        except SandboxError as exc:
            sender.leave(exc.message)
            raise
        if self._ids_changed:
            self._mend_ids()

    def take_awareness(self, update: bytes, sender: Peer) -> None:
        """Take what a peer says of itself and give it to the others."""
        self.presence.take(update, sender)

    def left(self, peer: Peer) -> None:
        """A peer has left."""
        if peer in self._peers:
            self._peers.remove(peer)
        self.presence.left(peer)

    # --- inside

    def _apply(self, update: bytes) -> None:
        try:
            self._doc.apply_update(update)
        except Exception as exc:
            raise InvalidRequest(f"The update cannot be applied: {exc}."[:300]) from exc
        except BaseException as exc:
            if type(exc).__name__ != "PanicException":  # which the library's own failures raise
                raise
            logger.error("an update of a peer broke the document, which is made anew: %s", exc)
            raise InvalidRequest("The update cannot be applied.") from exc

    @contextmanager
    def _changing(self, sender: Peer | None = None, *, types: int = 0) -> Generator[None]:
        """Change the document in one transaction, then keep and tell what came of it; where that
        fails, it is as before."""
        try:
            with self._doc.transaction():
                yield
            if sender is not None:
                self._check_shape(types)
            made = [update for update in self._made if update != EMPTY_UPDATE]
            self._made.clear()
            for update in made:
                self._store.append(update)
        except BaseException:
            self._load()
            raise
        for update in made:
            self._count += 1
            self._bytes += len(update)
            for peer in self.peers:
                if peer is not sender:
                    peer.offer_update(update)
        self._fresh.clear()
        if self._count > COMPACT_UPDATES or self._bytes > 2 * self._kept_bytes + COMPACT_BYTES:
            self._compact()
        if self._has_changed:
            self._has_changed = False
            self.version += 1
            self._on_change()

    def _compact(self) -> None:
        whole = self._doc.get_update()
        self._store.replace(whole)
        self._count, self._bytes, self._kept_bytes = 1, len(whole), len(whole)

    def _check_room(self, more: int) -> None:
        if self._bytes + more > MAX_DOCUMENT_BYTES:
            self._compact()
            if self._bytes + more > MAX_DOCUMENT_BYTES:
                raise QuotaExceeded(
                    f"The notebook has {self._bytes:,} bytes with what is remembered of its past; "
                    f"{MAX_DOCUMENT_BYTES:,} are the most.",
                    remedy="Clear the outputs of its largest cells, or copy it to a new file.",
                )

    def _check_shape(self, types: int) -> None:
        """Refuse what a peer made where it is none that a notebook has."""
        if len(self._ycells) > MAX_CELLS:
            raise QuotaExceeded(f"A notebook has at most {MAX_CELLS:,} cells.")
        deepest = max((depth for depth, _ in self._fresh), default=0)
        if types + deepest <= MAX_NESTED:
            return
        waiting = [(depth + 1, value) for depth, value in self._fresh]
        with self._doc.transaction():
            while waiting:
                depth, value = waiting.pop()
                if depth > MAX_NESTED:
                    raise InvalidRequest(f"Its values are nested more than {MAX_NESTED} deep.")
                inner = cast("Any", value.values() if isinstance(value, Map) else value)
                waiting += ((depth + 1, each) for each in inner if isinstance(each, Map | Array))

    def _cells_changed(self, events: Sequence[Any]) -> None:
        self._has_changed = True
        self._notebook = None
        touched: set[int] = set()
        for event in events:
            path = event.path
            if path:
                touched.add(path[0])
                self._note(event, len(path))
                if len(path) == 1 and "id" in getattr(event, "keys", ()):
                    self._ids_changed = True
                continue
            at = 0
            for step in event.delta:
                if "retain" in step:
                    at += step["retain"]
                elif "delete" in step:
                    del self._cells[at : at + step["delete"]]
                else:
                    inserted = step["insert"]
                    self._cells[at:at] = [None] * len(inserted)
                    at += len(inserted)
                    self._ids_changed = True
            self._note(event, 0)
        for at in touched:
            self._cells[at] = None

    def _meta_changed(self, events: Sequence[Any]) -> None:
        self._has_changed = True
        self._metadata = self._notebook = None
        for event in events:
            self._note(event, len(event.path))

    def _state_changed(self, events: Sequence[Any]) -> None:
        for event in events:
            self._note(event, len(event.path))

    def _note(self, event: Any, depth: int) -> None:
        """Remember what maps and arrays an event has put in, and how deep."""
        if hasattr(event, "keys"):
            put_in = [change.get("newValue") for change in event.keys.values()]
        elif isinstance(event.target, Array):
            put_in = [each for step in event.delta for each in step.get("insert", ())]
        else:
            return
        self._fresh += ((depth, each) for each in put_in if isinstance(each, Map | Array))

    def _mend_ids(self) -> None:
        """Give each cell an id of its own, and make a cell of what is none."""
        notebook = self.read()
        self._ids_changed = False
        seen: set[str] = set()
        wrong: list[int] = []
        for at, cell in enumerate(notebook.cells):
            if cell.id in seen or not is_cell_id(cell.id):
                wrong.append(at)
            seen.add(cell.id)
        if not wrong:
            return
        with self._changing():
            for at in wrong:
                cell, made = notebook.cells[at], new_cell_id(notebook)
                if isinstance(found := self._ycells[at], Map):
                    found["id"] = made
                else:
                    self._ycells[at] = made_cell(Cell(made, "raw", cell.source))
        self._ids_changed = False

    def _tell(self, awareness: bytes, but: Peer | None) -> None:
        for peer in self.peers:
            if peer is not but:
                peer.offer(awareness_message(awareness))
