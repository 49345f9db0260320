"""A controller that is served to callers who count, killed and started again, and looked at."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Self

import anyio
import anyio.to_thread

from scripts.kills import claims

from . import observed
from .aftermath import Aftermath
from .counting import CountingCaller
from .served import Served, serve

UNHEARD_S = 30.0
POLICY = "many"
"""The policy of the callers' sessions: small ones, and many of them."""
RULES = """\
version: 1
image: python
limits: {memory: 320MiB, sessions: 24, idle: 30m, lifetime: 8h}
workspace: {size: 32MiB, persistent: true}
tmp: {size: 16MiB}
shm: 16MiB
"""


class ObservedRun:
    """One state folder, its controllers one after the other, and the callers of all of them.

    An async context manager: with a controller that has served from the beginning on.

    Args:
        folder: For its state, its log and what is observed.
        kept_ready: How many sandboxes of the callers' policy are kept ready.
        env: More settings, as variables.
    """

    def __init__(self, folder: Path, *, kept_ready: int = 0, **env: str) -> None:
        self.folder = folder
        pool = f"pool: {{min: {kept_ready}, max: {kept_ready}}}\n"
        (folder / "policies").mkdir()
        (folder / "policies" / f"{POLICY}.yaml").write_text(RULES + pool)
        self.aftermath = Aftermath(folder, env.get("SANDBOX_ENGINE", ""))
        self.callers: list[CountingCaller] = []
        self.served: Served
        self._env = {
            **observed.observable(folder),
            "TMPDIR": str(self.aftermath.temporary),
            "SANDBOX_POLICIES": str(folder / "policies"),
            "SANDBOX_DEFAULT_POLICY": POLICY,
            "SANDBOX_POOL": "true" if kept_ready else "false",
            **env,
        }
        self._controller = ExitStack()
        self._connections = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self.start()
        await self.aftermath.note(self.served)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._connections.aclose()
            await anyio.to_thread.run_sync(self._controller.close)

    async def start(self) -> None:
        """Start a controller, to which all callers turn from now on."""

        def start() -> Served:
            program = observed.__name__
            return self._controller.enter_context(serve(self.folder, program=program, **self._env))

        self.served = await anyio.to_thread.run_sync(start)
        for caller in self.callers:
            caller.http = await self._connections.enter_async_context(self.served.http())

    def kill(self) -> None:
        """End the controller as an out-of-memory killer does."""
        self.served.process.kill()
        self.served.process.wait(30)

    async def stop(self) -> None:
        """End the controller as an operator does."""
        await anyio.to_thread.run_sync(self._controller.close)

    async def callers_of(
        self, count: int, *, allowed: Iterable[str] = (), **wanted: str
    ) -> list[CountingCaller]:
        """So many more callers, each with a session of its own."""
        made: list[CountingCaller] = []
        for _ in range(count):
            http = await self._connections.enter_async_context(self.served.http())
            made.append(CountingCaller(http, allowed=allowed))
        self.callers += made
        async with anyio.create_task_group() as tasks:
            for caller in made:
                tasks.start_soon(lambda caller=caller: caller.begin(policy=POLICY, **wanted))
        return made

    async def truthful(self) -> None:
        """After a fault: each caller goes on where it was or knows why not, and none was told
        what is not so."""
        async with anyio.create_task_group() as tasks:
            for caller in self.callers:
                tasks.start_soon(caller.recovered)
        lies = [caller.lies for caller in self.callers if caller.lies]
        assert not lies, lies  # no rewriting of pytest's here, so all is told by hand

    @property
    def live(self) -> list[str]:
        """The sessions that are not known to have ended."""
        return [caller.session_id for caller in self.callers if not caller.ended]

    async def close_unheard(self) -> None:
        """Close the sessions whose openers were cut off before they heard of them."""
        with anyio.fail_after(UNHEARD_S):
            async with self.served.http() as http:
                while unheard := await anyio.to_thread.run_sync(self._unheard):
                    for session_id in unheard:
                        await http.delete(f"/mcp/v1/sessions/{session_id}")  # once it is open
                    await anyio.sleep(0.1)

    def _unheard(self) -> set[str]:
        told = claims(self.folder / "state").values()
        return {session_id for session_id, _ in told} - set(self.live)

    async def check(self) -> None:
        """After a fault: callers, engine and machine, as they must be."""
        await self.truthful()
        await self.aftermath.check(self.served, self.live)

    async def close(self) -> None:
        """Close what lives; then nothing may be left, and what ended is still told so."""
        for caller in self.callers:
            answer = await caller.http.delete(caller.url)
            wanted = {"lost", "expired"} if caller.ended else {"closed"}
            assert answer.json()["state"] in wanted, answer.text
        self.callers.clear()
        await self.aftermath.check(self.served)
