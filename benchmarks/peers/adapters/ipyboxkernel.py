"""ipybox 0.6: a kernel gateway and a resource server in a container, behind published ports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ipybox import ExecutionClient, ExecutionContainer, ResourceClient

from benchmarks.peers.adapters.background import Background
from benchmarks.peers.adapters.loop import Adapter, serve


@dataclass
class Session:
    """A container and the client of its kernel."""

    container: ExecutionContainer
    client: ExecutionClient


class IpyBox(Adapter):
    """A session is an ``ExecutionContainer`` with one ``ExecutionClient``."""

    def start(self, settings: Mapping[str, str]) -> None:
        self._image = settings["image"]
        self._loop = Background()

    def open(self) -> Session:
        async def opened() -> Session:
            container = ExecutionContainer(tag=self._image)
            await container.run()
            client = ExecutionClient(port=container.executor_port)
            await client.connect()
            return Session(container, client)

        return self._loop.wait(opened())

    def run(self, session: Session, code: str) -> str:
        return self._loop.wait(session.client.execute(code)).text or ""

    def restart(self, session: Session) -> None:
        """A client has a kernel of its own, which ends with it."""

        async def restarted() -> None:
            await session.client.disconnect()
            session.client = ExecutionClient(port=session.container.executor_port)
            await session.client.connect()

        self._loop.wait(restarted())

    def put(self, session: Session, source: Path, name: str) -> None:
        async def sent() -> None:
            async with ResourceClient(port=session.container.resource_port) as client:
                await client.upload_file(name, source)

        self._loop.wait(sent())

    def get(self, session: Session, name: str, target: Path) -> None:
        async def taken() -> None:
            async with ResourceClient(port=session.container.resource_port) as client:
                await client.download_file(name, target)

        self._loop.wait(taken())

    def close(self, session: Session) -> None:
        async def closed() -> None:
            await session.client.disconnect()
            await session.container.kill()

        self._loop.wait(closed())

    def containers(self, session: Session) -> list[str]:
        return [session.container._container.id]


if __name__ == "__main__":
    serve(IpyBox())
