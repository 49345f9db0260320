"""A notebook's document in memory: what it is made of, what it shows, and what changes in it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, cast

from pycrdt import Array, Doc, Map, Text

from sandbox.collaboration.ycells import MAX_LISTED, made_cell, plain_value, read_cell
from sandbox.errors import InvalidRequest, QuotaExceeded
from sandbox.notebooks.models import MAX_CELLS, Cell, Notebook, is_cell_id, new_cell_id

MAX_NESTED = 24
"""How deep what a peer puts in may be: a notebook's texts, maps and arrays are five deep."""
MAX_PATH = 12
"""How deep it may be put in."""
EMPTY_UPDATE = b"\x00\x00"

logger = logging.getLogger(__name__)


class Replica:
    """One document, made of updates.

    What it shows is remembered by cell, and read again only where it was changed.
    """

    def __init__(self, updates: Sequence[bytes]) -> None:
        self.doc = doc = Doc[Any]()
        self.ycells = cast("Array[Any]", doc.get("cells", type=Array))
        self.ymeta = cast("Map[Any]", doc.get("meta", type=Map))
        self.ystate = cast("Map[Any]", doc.get("state", type=Map))
        with doc.transaction():
            for update in updates:
                doc.apply_update(update)
        self.has_changed = False
        """Whether its cells or metadata did since this was last set."""
        self.ids_changed = True
        """Whether ids may be missing, or be there twice."""
        self._cells: list[Cell | None] = [None] * len(self.ycells)
        self._metadata: Any = None
        self._notebook: Notebook | None = None
        self._made: list[bytes] = []
        self._fresh: list[tuple[int, Any]] = []
        """What was put in, and how deep that was."""
        self._deepest = 0
        self._is_too_long = False
        self._observed: list[tuple[Any, Any]] = []
        self._observe()

    def _observe(self) -> None:
        doc = self.doc
        self._observed = [
            (doc, doc.observe(lambda event: self._made.append(event.update))),
            (self.ycells, self.ycells.observe_deep(self._cells_changed)),
            (self.ymeta, self.ymeta.observe_deep(self._meta_changed)),
            (self.ystate, self.ystate.observe_deep(self._state_changed)),
        ]

    def close(self) -> None:
        """Stop to observe it, for what is observed is never collected."""
        for observed, subscription in self._observed:
            observed.unobserve(subscription)
        self._observed = []

    # --- what it shows

    def read(self) -> Notebook:
        """The notebook as it is now."""
        if self._notebook is None:
            if self._metadata is None:
                found = plain_value(self.ymeta.get("metadata"))
                self._metadata = found if isinstance(found, dict) else {}
            self.read_cells(0, len(self._cells))
            self._notebook = Notebook(tuple(cast("list[Cell]", self._cells)), self._metadata)
        return self._notebook

    @property
    def count(self) -> int:
        """How many cells there are."""
        return len(self._cells)

    def read_cells(self, start: int, end: int) -> None:
        """Read some cells, where they are not known."""
        with self.doc.transaction():
            for at in range(start, min(end, len(self._cells))):
                if self._cells[at] is None:
                    self._cells[at] = read_cell(self.ycells[at])

    def remember(self, start: int, cells: Sequence[Cell]) -> None:
        """Take it that these cells were put in there."""
        self._cells[start : start + len(cells)] = cells

    # --- what changes

    def begin(self) -> None:
        """A change begins."""
        self._made.clear()
        self._fresh.clear()
        self._deepest = 0
        self._is_too_long = False

    def taken(self) -> list[bytes]:
        """The updates that the change made."""
        made = [update for update in self._made if update != EMPTY_UPDATE]
        self._made.clear()
        return made

    def apply(self, update: bytes, *, is_large: bool = False) -> None:
        """Apply a peer's update, which was looked at, in a transaction.

        Args:
            is_large: Do not look at its changes one by one, which takes long where they are many,
                but at all of the document anew.

        Raises:
            InvalidRequest: It cannot be; the document may be broken.
        """
        if is_large:
            self._blind()
        try:
            self.doc.apply_update(update)
        except Exception as exc:
            raise InvalidRequest(f"The update cannot be applied: {exc}."[:300]) from exc
        except BaseException as exc:
            if type(exc).__name__ != "PanicException":  # which the library's own failures raise
                raise
            logger.error("an update of a peer broke a document: %s", exc)
            raise InvalidRequest("The update cannot be applied.") from exc

    def _blind(self) -> None:
        for observed, subscription in self._observed[1:]:  # all but its updates
            observed.unobserve(subscription)
        del self._observed[1:]

    def _look_again(self) -> None:
        """Observe again what was changed unseen."""
        self.close()
        self._observe()
        self._cells = [None] * len(self.ycells)
        self._metadata = self._notebook = None
        self.has_changed = self.ids_changed = True
        self._fresh = [(0, self.ycells), (0, self.ymeta), (0, self.ystate)]

    def check_shape(self, types: int) -> None:
        """Look at what a peer's update has made of it.

        Args:
            types: How many texts, maps and arrays the update has.

        Raises:
            InvalidRequest, QuotaExceeded: That is no notebook any more.
        """
        if len(self.ycells) > MAX_CELLS:
            raise QuotaExceeded(f"A notebook has at most {MAX_CELLS:,} cells.")
        is_unseen = len(self._observed) == 1
        if is_unseen:
            self._look_again()
        if self._is_too_long:
            raise InvalidRequest(f"A list in it has more than {MAX_LISTED:,} items.")
        if self._deepest > MAX_PATH:
            raise InvalidRequest(f"It is put in more than {MAX_PATH} deep.")
        if types + self._deepest >= MAX_NESTED or is_unseen:
            self._check_depth()
        self.read()  # what cannot be read is not kept

    def _check_depth(self) -> None:
        waiting = [(depth + 1, value) for depth, value in self._fresh]
        with self.doc.transaction():
            while waiting:
                depth, value = waiting.pop()
                if isinstance(value, Array) and len(cast("Array[Any]", value)) > MAX_LISTED:
                    raise InvalidRequest(f"A list in it has more than {MAX_LISTED:,} items.")
                if depth > MAX_NESTED:
                    raise InvalidRequest(f"Its values are nested more than {MAX_NESTED} deep.")
                waiting += ((depth + 1, each) for each in _types_in(value))

    def mend(self) -> None:
        """Give each cell an id of its own, and make a cell of what is none; in a transaction."""
        notebook = self.read()
        seen: set[str] = set()
        for at, cell in enumerate(notebook.cells):
            if cell.id not in seen and is_cell_id(cell.id):
                seen.add(cell.id)
                continue
            made = new_cell_id(notebook)
            if isinstance(found := self.ycells[at], Map):
                found["id"] = made
            else:
                self.ycells[at] = made_cell(Cell(made, "raw", cell.source))

    # --- inside

    def _cells_changed(self, events: Sequence[Any]) -> None:
        self.has_changed = True
        self._notebook = None
        touched: set[int] = set()
        for event in events:
            path = event.path
            if not self._noted(event, len(path)):
                continue
            if path:
                touched.add(path[0])
                if len(path) == 1 and "id" in getattr(event, "keys", ()):
                    self.ids_changed = True
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
                    self.ids_changed = True
        for at in touched:
            self._cells[at] = None

    def _meta_changed(self, events: Sequence[Any]) -> None:
        self.has_changed = True
        self._metadata = self._notebook = None
        self._state_changed(events)

    def _state_changed(self, events: Sequence[Any]) -> None:
        for event in events:
            self._noted(event, len(event.path))

    def _noted(self, event: Any, depth: int) -> bool:
        """Remember what texts, maps and arrays an event has put in, and how deep; False where that
        is too much to be looked at, so that the change is undone."""
        self._deepest = max(self._deepest, depth)
        target = event.target
        if isinstance(target, Array) and len(cast("Array[Any]", target)) > MAX_LISTED:
            self._is_too_long = True  # a text among the items counts by its characters
            return False
        if hasattr(event, "keys"):
            put_in = [change.get("newValue") for change in event.keys.values()]
        elif isinstance(target, Text):
            put_in = [step.get("insert") for step in event.delta]
        else:
            put_in = [each for step in event.delta for each in step.get("insert", ())]
        self._fresh += ((depth, each) for each in put_in if isinstance(each, _TYPES))
        return True


_TYPES = (Text, Map, Array)


def _types_in(value: Any) -> list[Any]:
    """The texts, maps and arrays in one of them."""
    inner: Iterable[Any]
    if isinstance(value, Text):
        inner = [piece for piece, _ in value.diff()]
    else:
        inner = cast("Iterable[Any]", value.values() if isinstance(value, Map) else value)
    return [each for each in inner if isinstance(each, _TYPES)]
