"""What is known of the engine, so that openings need not ask."""

from __future__ import annotations

from sandbox.runtimes.base import ContainerRuntime, EngineInfo


class KnownEngine:
    """What the engine is; asking it takes longer than most steps of an opening."""

    def __init__(self, runtime: ContainerRuntime) -> None:
        self._runtime = runtime
        self._known: EngineInfo | None = None

    async def get(self) -> EngineInfo:
        """What it was when last asked.

        Raises:
            EngineUnavailable: It was never asked, and does not answer now.
        """
        return self._known or await self.ask()

    async def ask(self) -> EngineInfo:
        """What it is now.

        Raises:
            EngineUnavailable: It does not answer.
        """
        self._known = await self._runtime.engine()
        return self._known
