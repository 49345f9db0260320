"""AutoGen's Docker Jupyter executor: a kernel gateway in a container, behind a published port."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from autogen_core import CancellationToken
from autogen_core.code_executor import CodeBlock
from autogen_ext.code_executors.docker_jupyter import DockerJupyterCodeExecutor, DockerJupyterServer

from benchmarks.peers.adapters.background import Background
from benchmarks.peers.adapters.loop import Adapter, serve

START_TIMEOUT_S = 60
RETRY_S = 0.1


@dataclass(frozen=True)
class Session:
    """A server, its one executor, the folder that both sides have, and the loop of its own."""

    loop: Background
    server: DockerJupyterServer
    executor: DockerJupyterCodeExecutor
    folder: Path


class AutoGen(Adapter):
    """A session is a ``DockerJupyterServer`` with one ``DockerJupyterCodeExecutor``."""

    def start(self, settings: Mapping[str, str]) -> None:
        self._image = settings["image"]
        self._folder = Path(settings["folder"])

    def open(self) -> Session:
        loop = Background()
        folder = Path(tempfile.mkdtemp(dir=self._folder))

        async def opened() -> Session:
            server = DockerJupyterServer(custom_image_name=self._image, bind_dir=folder)
            deadline = time.monotonic() + START_TIMEOUT_S
            while True:  # the server is said to be there before it answers
                executor = DockerJupyterCodeExecutor(jupyter_server=server)
                try:
                    await executor.start()
                except (OSError, aiohttp.ClientError):
                    if time.monotonic() > deadline:
                        raise
                    await asyncio.sleep(RETRY_S)
                else:
                    return Session(loop, server, executor, folder)

        return loop.wait(opened())

    def run(self, session: Session, code: str) -> str:
        blocks = [CodeBlock(code=code, language="python")]
        told = session.loop.wait(
            session.executor.execute_code_blocks(blocks, cancellation_token=CancellationToken())
        )
        if told.exit_code != 0:
            raise RuntimeError(told.output)
        return told.output

    def restart(self, session: Session) -> None:
        session.loop.wait(session.executor.restart())

    def put(self, session: Session, source: Path, name: str) -> None:
        shutil.copyfile(source, session.folder / name)

    def get(self, session: Session, name: str, target: Path) -> None:
        shutil.copyfile(session.folder / name, target)

    def close(self, session: Session) -> None:
        async def closed() -> None:
            await session.executor.stop()
            await session.server.stop()

        session.loop.wait(closed())
        shutil.rmtree(session.folder, ignore_errors=True)

    def containers(self, session: Session) -> list[str]:
        return [session.server._container_id]


if __name__ == "__main__":
    serve(AutoGen())
