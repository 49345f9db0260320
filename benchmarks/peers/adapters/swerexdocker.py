"""SWE-ReX: a server in a container, with a Bash session in which each code is a new Python."""

from __future__ import annotations

import logging
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from swerex.deployment.docker import DockerDeployment
from swerex.runtime.abstract import (
    BashAction,
    CloseBashSessionRequest,
    CreateBashSessionRequest,
    ReadFileRequest,
    UploadRequest,
)

from benchmarks.peers.adapters.background import Background
from benchmarks.peers.adapters.loop import Adapter, serve


class SweRex(Adapter):
    """A session is a ``DockerDeployment`` with one Bash session.

    Its own client sleeps in the event loop while it waits for a container, so each session has a
    loop of its own.
    """

    def start(self, settings: Mapping[str, str]) -> None:
        self._image = settings["image"]
        logging.disable(logging.INFO)

    def open(self) -> tuple[Background, DockerDeployment]:
        loop = Background()
        deployment = DockerDeployment(image=self._image, pull="never")

        async def opened() -> None:
            await deployment.start()
            await deployment.runtime.create_session(CreateBashSessionRequest())

        loop.wait(opened())
        return loop, deployment

    def run(self, session: tuple[Background, DockerDeployment], code: str) -> str:
        loop, deployment = session
        command = f"python3 -c {shlex.quote(code)}"
        told = loop.wait(deployment.runtime.run_in_session(BashAction(command=command)))
        return told.output

    def restart(self, session: tuple[Background, DockerDeployment]) -> None:
        loop, deployment = session

        async def restarted() -> None:
            await deployment.runtime.close_session(CloseBashSessionRequest())
            await deployment.runtime.create_session(CreateBashSessionRequest())

        loop.wait(restarted())

    def put(self, session: tuple[Background, DockerDeployment], source: Path, name: str) -> None:
        loop, deployment = session
        request = UploadRequest(source_path=str(source), target_path=f"/workspace/{name}")
        loop.wait(deployment.runtime.upload(request))

    def get(self, session: tuple[Background, DockerDeployment], name: str, target: Path) -> None:
        """It reads text alone; the file that is measured is text."""
        loop, deployment = session
        request = ReadFileRequest(path=f"/workspace/{name}")
        target.write_text(loop.wait(deployment.runtime.read_file(request)).content)

    def close(self, session: tuple[Background, DockerDeployment]) -> None:
        loop, deployment = session
        loop.wait(deployment.stop())

    def containers(self, session: tuple[Background, DockerDeployment]) -> list[str]:
        command = ["docker", "inspect", "--format", "{{.Id}}", str(session[1].container_name)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


if __name__ == "__main__":
    serve(SweRex())
