"""Callers that count in sessions of their own, and hold every answer against what they know.

A caller counts in a variable of its kernel, so an answer tells whether its state was kept: one that
begins anew without a word is a lie, and so is a number that was told twice or left out. What a
fault may cost is known to be told; anything else that a caller is told is noted as a fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import httpx2

FILE = "kept.txt"
COUNT = "n += 1\nprint(n)"
NOT_BEGUN = "before this cell ran"
ENDED = frozenset({"session_lost"})
UNSURE = frozenset({"link_lost"})
"""Codes after which a cell may have run or not."""
PATIENCE_S = 60.0


class CountingCaller:
    """One caller with a session of its own.

    Args:
        http: How it asks; replaced by whoever has started another controller.
        allowed: Codes of errors with which a call may be refused meanwhile, and has done nothing.
    """

    def __init__(self, http: httpx2.AsyncClient, *, allowed: Iterable[str] = ()) -> None:
        self.http = http
        self.allowed = frozenset(allowed)
        self.may_be_cut = False
        """Whether its connection may break."""
        self.session_id = ""
        self.least = self.most = 0
        """What it may have counted to."""
        self.is_dead = False
        """Whether its kernel has died, and was not started again."""
        self.ended = ""
        """Why its session has ended, as it was told; empty while it lives."""
        self.deaths: list[str] = []
        """Why its kernel has died, as it was told."""
        self.answers: Counter[str] = Counter()
        self.lies: list[str] = []

    @property
    def url(self) -> str:
        return f"/mcp/v1/sessions/{self.session_id}"

    async def begin(self, **wanted: Any) -> None:
        """Open its session."""
        answer = await self.http.post("/mcp/v1/sessions", json={"reuse": False, **wanted})
        assert answer.status_code == 201, answer.text
        self.session_id = answer.json()["session_id"]
        answer = await self.http.put(f"{self.url}/files/{FILE}", content=self.session_id.encode())
        assert answer.status_code in (200, 201), answer.text
        assert (await self.run("n = 0"))["status"] == "ok"

    async def run(self, code: str) -> dict[str, Any]:
        """Run a cell to its end; a problem (RFC 9457) if it was refused."""
        answer = await self.http.post(f"{self.url}/executions", json={"code": code})
        told = answer.json()
        with anyio.fail_after(PATIENCE_S):
            while told.get("status") == "running":
                url = f"{self.url}/executions/{told['execution_id']}"
                answer = await self.http.get(url, params={"wait": 10})
                told = answer.json()
        return told

    async def shell(self, command: str) -> dict[str, Any]:
        """Run a command to its end, or find that it cannot be run any more."""
        answer = await self.http.post(f"{self.url}/commands", json={"command": command})
        return answer.json()

    async def count(self) -> None:
        """Count once, or begin again where its kernel has died."""
        try:
            if self.is_dead:
                await self._begin_again()
            else:
                self._hear(await self.run(COUNT))
        except httpx2.TransportError as exc:
            self.most += not isinstance(exc, httpx2.ConnectError)  # which has brought nothing over
            self.answers["cut"] += 1
            if not self.may_be_cut:
                self.lies.append(f"the connection: {exc!r}")
            await anyio.sleep(0.05)

    async def recovered(self) -> None:
        """Count until that succeeds, or its session is told to have ended."""
        before, counted = len(self.lies), self.answers["ok"]
        with anyio.fail_after(PATIENCE_S):
            while not self.ended and self.answers["ok"] == counted and len(self.lies) == before:
                await self.count()
        if not self.ended and not self.lies:
            answer = await self.http.get(f"{self.url}/files/{FILE}")
            if answer.text != self.session_id:
                self.lies.append(f"its file: {answer.text:.200}")

    async def _begin_again(self) -> None:
        answer = await self.http.post(f"{self.url}/kernels/k-default/restart", json={})
        if answer.status_code != 200:
            self._refused(answer.json())
            return
        told = await self.run("n = 0")
        if told.get("status") == "ok":
            self.least = self.most = 0
            self.is_dead = False
        else:
            self._hear(told)

    def _hear(self, told: dict[str, Any]) -> None:
        """Take an answer for what it says."""
        status, reason = told.get("status"), told.get("reason") or ""
        if not isinstance(status, str):  # of a problem it is a number
            self._refused(told)
            return
        self.answers[status] += 1
        match status:
            case "ok":
                number = int(told["text"])
                if not self.least < number <= self.most + 1:
                    known = f"{self.least} to {self.most}"
                    self.lies.append(f"counted to {number} after {known}")
                self.least = self.most = number
            case "died" if told["state"] == "lost" and reason:
                self.deaths.append(reason)
                self.is_dead = True
            case "lost" if NOT_BEGUN in reason:
                pass
            case "lost" if reason:
                self.most += 1
            case _:
                self.lies.append(f"{status}: {told!r:.400}")

    def _refused(self, told: dict[str, Any]) -> None:
        code = told.get("code", "")
        self.answers[code] += 1
        if code in ENDED:
            self.ended = told["detail"]
        elif code in UNSURE:
            self.most += 1
        elif code == "conflict" and "is dead" in told["detail"]:  # it died between two cells
            self.deaths.append(told["detail"])
            self.is_dead = True
        elif code not in self.allowed:
            self.lies.append(f"refused: {told!r:.400}")


@asynccontextmanager
async def counting(*callers: CountingCaller) -> AsyncIterator[None]:
    """Have callers count, one call after the other, until the end of the block."""
    is_over = False

    async def count(caller: CountingCaller) -> None:
        while not (is_over or caller.ended or caller.lies):
            await caller.count()
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for caller in callers:
            tasks.start_soon(count, caller)
        yield
        is_over = True
