"""llm-sandbox, interactive: an IPython in a container, spoken to through files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llm_sandbox import InteractiveSandboxSession

from benchmarks.peers.adapters.loop import Adapter, serve


class Interactive(Adapter):
    """A session is an ``InteractiveSandboxSession`` of our image."""

    def start(self, settings: Mapping[str, str]) -> None:
        self._image = settings["image"]

    def open(self) -> InteractiveSandboxSession:
        session = InteractiveSandboxSession(image=self._image, lang="python", keep_template=True)
        session.open()
        return session

    def run(self, session: InteractiveSandboxSession, code: str) -> str:
        result = session.run(code)
        if result.exit_code != 0:
            raise RuntimeError(result.stderr or result.stdout)
        return result.stdout

    def put(self, session: InteractiveSandboxSession, source: Path, name: str) -> None:
        session.copy_to_runtime(str(source), f"/sandbox/{name}")

    def get(self, session: InteractiveSandboxSession, name: str, target: Path) -> None:
        session.copy_from_runtime(f"/sandbox/{name}", str(target))

    def close(self, session: InteractiveSandboxSession) -> None:
        session.close()

    def containers(self, session: InteractiveSandboxSession) -> list[str]:
        return [session.container.id]


if __name__ == "__main__":
    serve(Interactive())
