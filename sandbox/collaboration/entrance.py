"""What a peer's update must pass before a document takes it, with what that has to know of it."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Any, TypeVar

import anyio
from anyio import to_thread
from pycrdt import Doc

from sandbox.collaboration.places import Places
from sandbox.collaboration.updates import Checked, check_update, read_places, read_state
from sandbox.errors import InvalidRequest

IN_A_THREAD_BYTES = 64 * 1024
MAX_NOTED_BYTES = 4 * 1024 * 1024
ATTEMPTS = 3
STEPS_A_SECOND, STEPS_AT_ONCE = 1_000_000, 1_000_000
"""What updates may take of the controller's time, of steps of 0.3 µs."""

T = TypeVar("T")


class Pace:
    """Makes the updates of one document wait where those before took long."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = clock()
        self._steps = 0.0

    async def wait(self) -> None:
        """Wait until one more may be taken."""
        now = self._clock()
        self._steps = max(0, self._steps - (now - self._at) * STEPS_A_SECOND)
        self._at = now
        if self._steps > STEPS_AT_ONCE:
            await anyio.sleep((self._steps - STEPS_AT_ONCE) / STEPS_A_SECOND)

    def spend(self, steps: float) -> None:
        """One was taken."""
        self._steps += steps


class Entrance:
    """Looks at the updates for one document, one at a time.

    Where the document's items are is found out when the first update comes, from the whole of it,
    so that a notebook in which no peer writes costs nothing.
    """

    def __init__(self, doc: Doc[Any]) -> None:
        self._doc = doc
        self._places: Places | None = None
        self._noted: list[bytes] | None = None
        """What this side changed and is not in the places yet; None where those are not kept."""
        self._noted_bytes = 0

    def note(self, update: bytes) -> None:
        """This side has changed the document."""
        if self._noted is None:
            return
        self._noted.append(update)
        self._noted_bytes += len(update)
        if self._noted_bytes > MAX_NOTED_BYTES:
            self._noted = self._places = None

    def accept(self, checked: Checked) -> None:
        """The update that was looked at last is in the document."""
        if self._places is not None:
            self._places.absorb(checked.places)

    async def check(self, update: bytes, reserved: Callable[[], Container[int]]) -> Checked:
        """Look at an update; large ones in a thread.

        Args:
            reserved: Tells the ids under which others make their changes.

        Raises:
            InvalidRequest, Missing: As :func:`sandbox.collaboration.updates.check_update`.
        """
        known = await self._known()
        return await _run(partial(check_update, update, known, reserved()), len(update))

    async def _known(self) -> Places:
        """Where all of the document is now."""
        for _ in range(ATTEMPTS):
            places = self._places
            if places is None:
                whole = self._doc.get_update()
                self._noted, self._noted_bytes = [], 0
                places = self._places = await _run(partial(read_places, whole), len(whole))
            while self._noted:
                noted, size = self._noted, self._noted_bytes
                self._noted, self._noted_bytes = [], 0
                await _run(partial(_learn, places, noted), size)
            if read_state(self._doc.get_state()) == places.ends:
                return places
            self._noted = self._places = None  # there was too much to note
        raise InvalidRequest("The update cannot be checked, for the notebook changes all the time.")


def _learn(places: Places, updates: Sequence[bytes]) -> None:
    for update in updates:
        places.absorb(read_places(update, places))


async def _run(work: Callable[[], T], size: int) -> T:
    return work() if size < IN_A_THREAD_BYTES else await to_thread.run_sync(work)
