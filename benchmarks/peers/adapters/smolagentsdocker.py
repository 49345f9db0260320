"""smolagents' Docker executor: a kernel gateway in a container, a WebSocket for each code."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from smolagents.monitoring import AgentLogger, LogLevel
from smolagents.remote_executors import DockerExecutor

from benchmarks.peers.adapters.loop import Adapter, serve


class SmolAgents(Adapter):
    """A session is a ``DockerExecutor``."""

    def start(self, settings: Mapping[str, str]) -> None:
        self._image = settings["image"]

    def open(self) -> DockerExecutor:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        return DockerExecutor(
            additional_imports=[],
            logger=AgentLogger(level=LogLevel.OFF),
            port=port,
            image_name=self._image,
            build_new_image=False,
        )

    def run(self, session: DockerExecutor, code: str) -> str:
        return session(code).logs

    def close(self, session: DockerExecutor) -> None:
        session.cleanup()

    def containers(self, session: DockerExecutor) -> list[str]:
        return [session.container.id]


if __name__ == "__main__":
    serve(SmolAgents())
