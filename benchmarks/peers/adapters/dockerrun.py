"""Bare Docker: ``docker run``, and ``docker exec`` of a new Python for each piece of code."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from benchmarks.peers.adapters.loop import Adapter, serve


class DockerRun(Adapter):
    """A session is a container that sleeps."""

    def start(self, settings: Mapping[str, str]) -> None:
        self._image = settings["image"]

    def open(self) -> str:
        return self._docker(
            *("run", "--detach", "--rm", "--label", "sandbox-peers", "--network", "none"),
            *(self._image, "sleep", "86400"),
        ).strip()

    def run(self, session: str, code: str) -> str:
        return self._docker("exec", session, "python3", "-c", code)

    def put(self, session: str, source: Path, name: str) -> None:
        self._docker("cp", "--quiet", str(source), f"{session}:/workspace/{name}")

    def get(self, session: str, name: str, target: Path) -> None:
        self._docker("cp", "--quiet", f"{session}:/workspace/{name}", str(target))

    def close(self, session: str) -> None:
        self._docker("rm", "--force", session)

    def containers(self, session: str) -> list[str]:
        return [session]

    def program(self, code: str) -> str:
        return self._docker(
            *("run", "--rm", "--network", "none", self._image, "python3", "-c", code)
        )

    @staticmethod
    def _docker(*words: str) -> str:
        done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"docker {words[0]}: {done.stderr.strip()}")
        return done.stdout


if __name__ == "__main__":
    serve(DockerRun())
