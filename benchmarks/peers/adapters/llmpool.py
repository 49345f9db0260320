"""llm-sandbox with its pool: containers that are kept, and given from one session to the next."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_sandbox import SandboxSession
from llm_sandbox.pool import PoolConfig, create_pool_manager

from benchmarks.peers.adapters.loop import Adapter, serve

SETTLE_TIMEOUT_S = 60
SIZE = 2


class Pooled(Adapter):
    """A session is a ``SandboxSession`` of the pool; a new Python for each piece of code."""

    def start(self, settings: Mapping[str, str]) -> None:
        self._image = settings["image"]
        self._pool = self._new_pool(max_container_uses=None)
        self._once: Any = None

    def stop(self) -> None:
        self._pool.close()
        if self._once is not None:
            self._once.close()

    def open(self) -> Any:
        session = SandboxSession(lang="python", image=self._image, pool=self._pool)
        session.open()
        return session

    def run(self, session: Any, code: str) -> str:
        result = session.run(code)
        if result.exit_code != 0:
            raise RuntimeError(result.stderr or result.stdout)
        return result.stdout

    def put(self, session: Any, source: Path, name: str) -> None:
        session.copy_to_runtime(str(source), f"/sandbox/{name}")

    def get(self, session: Any, name: str, target: Path) -> None:
        session.copy_from_runtime(f"/sandbox/{name}", str(target))

    def close(self, session: Any) -> None:
        session.close()

    def settle(self) -> None:
        self._filled(self._pool)

    def containers(self, session: Any) -> list[str]:
        return [session._pooled_container.container_id]

    def program(self, code: str) -> str:
        """Another pool, whose containers are used once: the one above would hand used ones out."""
        if self._once is None:
            raise RuntimeError("prepare() comes first")
        with SandboxSession(lang="python", image=self._image, pool=self._once) as session:
            return self.run(session, code)

    def prepare(self) -> None:
        if self._once is None:
            self._once = self._new_pool(max_container_uses=1)

    def _new_pool(self, max_container_uses: int | None) -> Any:
        config = PoolConfig(
            max_pool_size=8,
            min_pool_size=SIZE,
            enable_prewarming=True,
            max_container_uses=max_container_uses,
        )
        pool = create_pool_manager(
            backend="docker", config=config, lang="python", image=self._image
        )
        self._filled(pool)
        return pool

    @staticmethod
    def _filled(pool: Any) -> None:
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while pool.get_stats()["state_counts"]["idle"] < SIZE:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the pool did not fill: {pool.get_stats()}")
            time.sleep(0.05)


if __name__ == "__main__":
    serve(Pooled())
