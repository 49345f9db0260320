"""Health and readiness for whoever watches over the server: no token, and nothing told."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

READY_TIMEOUT_S = 5.0
READY_FOR_S = 1.0
"""How long an answer stays good, so that asking often costs the engine nothing."""

Check = Callable[[], Awaitable[object]]

logger = logging.getLogger(__name__)


class Health:
    """The two endpoints; the check returns when the engine answers, and raises otherwise."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._lock = anyio.Lock()
        self._asked_at = float("-inf")
        self._ready = False

    def routes(self) -> list[Route]:
        """``/healthz``: the process serves. ``/readyz``: sessions can be opened."""
        return [Route("/healthz", self._healthz), Route("/readyz", self._readyz)]

    async def _healthz(self, request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def _readyz(self, request: Request) -> JSONResponse:
        async with self._lock:
            if anyio.current_time() - self._asked_at > READY_FOR_S:
                self._ready = await self._ask()
                self._asked_at = anyio.current_time()
        if self._ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready"}, 503)

    async def _ask(self) -> bool:
        try:
            with anyio.fail_after(READY_TIMEOUT_S):
                await self._check()
        except Exception as exc:  # the outermost edge: whatever is wrong, the answer is no
            logger.info("not ready: %s", exc)
            return False
        return True
