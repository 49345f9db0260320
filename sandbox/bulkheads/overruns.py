"""What was set aside of a session because working on it took too long, and what comes of that."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from hashlib import sha256

from sandbox.bulkheads.bulkhead import Section
from sandbox.errors import TooMuchWork

MAX_OVERRUNS = 5
WINDOW_S = 60.0
"""A session is ended with its ``MAX_OVERRUNS``-th overrun within this time."""

logger = logging.getLogger(__name__)


class Overruns:
    """Counts them for one session. ``end`` ends it, with a reason in words; it is called once, and
    must return at once."""

    def __init__(self, session_id: str = "", end: Callable[[str], None] = lambda _reason: None):
        self._session_id = session_id
        self._end = end
        self._at: deque[float] = deque(maxlen=MAX_OVERRUNS)
        self._has_ended = False
        self.count = 0
        """How many there were."""

    def section(self, what: str) -> Section:
        """A bounded stretch of work on this session's bytes; to be entered once.

        Whoever catches its ``TooMuchWork`` sets the bytes aside and says so to :meth:`note`.
        """
        return Section(what, self._session_id)

    def note(self, error: TooMuchWork, data: bytes = b"") -> None:
        """Something was set aside: ``data``, where it is one piece."""
        what = f"{len(data):,} bytes with the SHA-256 digest {sha256(data).hexdigest()}"
        logger.warning(
            "session %s: %s Set aside: %s.", self._session_id, error.message, what if data else "it"
        )
        self.count += 1
        now = time.monotonic()
        self._at.append(now)
        is_often = len(self._at) == MAX_OVERRUNS and now - self._at[0] <= WINDOW_S
        if is_often and not self._has_ended:
            self._has_ended = True
            self._end(
                f"what it sent took the controller too long {MAX_OVERRUNS} times within "
                f"{WINDOW_S:g} s"
            )
