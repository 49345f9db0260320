"""How fast a broker works."""

from __future__ import annotations

import anyio


class Pace:
    """Lets so many pass each second, so many at once after a rest; the others wait their turn."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._interval_s = 1 / per_s
        self._rest_s = burst / per_s
        self._next_at = -self._rest_s

    async def turn(self) -> None:
        """Wait for one's turn."""
        now = anyio.current_time()
        self._next_at = max(self._next_at, now - self._rest_s) + self._interval_s
        await anyio.sleep(max(0.0, self._next_at - now))
