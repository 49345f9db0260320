"""The services of compose.yaml, running: by the compose program, or by hand where there is none.

``docker compose`` and ``docker-compose`` do the same. Without either, the services are created from
the parsed file through the engine's API, so that what the file says is tried on every machine.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import docker
import httpx2
import yaml
from docker.models.containers import Container
from docker.types import LogConfig

from sandbox import resources
from sandbox.runtimes.docker import build as builder
from sandbox.runtimes.docker.endpoint import find_endpoint

READY_TIMEOUT_S = 120


@dataclass(frozen=True)
class Composed:
    """Running services: where the controller is, and the containers by service."""

    base: str
    containers: dict[str, Container]

    @property
    def token(self) -> str:
        """As people find it, whatever the log around it looks like."""
        shown = self.containers["controller"].exec_run(
            ["python3", "-m", "sandbox", "token", "show"]
        )
        return shown.output.decode().split()[-1]

    def logs(self) -> str:
        """What the services said."""
        return "\n".join(each.logs().decode(errors="replace") for each in self.containers.values())

    def wait_until_ready(self) -> None:
        """Wait until the controller has taken over what there was."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not _answers(f"{self.base}/readyz"):
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)


def compose_file() -> Path:
    root = resources.checkout()
    assert root is not None
    return root / "compose.yaml"


def described(port: int = 8000) -> dict[str, Any]:
    """The file with its variables filled in."""
    text = re.sub(r"\$\{SANDBOX_PUBLISHED_PORT:-\d+\}", str(port), compose_file().read_text())
    return yaml.safe_load(text)


@cache
def program() -> tuple[str, ...]:
    """The compose program of this machine; empty when it has none."""
    for words in (("docker", "compose"), ("docker-compose",)):
        if shutil.which(words[0]):
            done = subprocess.run([*words, "version"], capture_output=True, check=False)
            if done.returncode == 0:
                return words
    return ()


@contextmanager
def composed(engine: docker.DockerClient, folder: Path) -> Iterator[Composed]:
    """The services, ready, until the end of the block."""
    with closing(builder.connect(find_endpoint("", "", os.environ))) as client:
        image = builder.build(client, "controller", progress=lambda line: None)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    project = f"test-compose-{uuid.uuid4().hex[:8]}"
    up = _by_program if program() else _by_hand
    with up(engine, project, port, image, folder) as containers:
        running = Composed(f"http://127.0.0.1:{port}", containers)
        running.wait_until_ready()
        yield running


@contextmanager
def _by_program(
    engine: docker.DockerClient, project: str, port: int, image: str, folder: Path
) -> Iterator[dict[str, Container]]:
    # The image by its exact name: another checkout may have built a later “latest”.
    override = folder / "image.yaml"
    services = {name: {"image": image} for name in described()["services"]}
    override.write_text(yaml.safe_dump({"services": services}))
    words = [*program(), "-p", project, "-f", str(compose_file()), "-f", str(override)]

    def compose(*command: str) -> None:
        done = subprocess.run(
            [*words, *command],
            env=os.environ | {"SANDBOX_PUBLISHED_PORT": str(port)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    try:
        compose("up", "--detach")
        label = f"com.docker.compose.project={project}"
        found = engine.containers.list(filters={"label": label})
        yield {each.labels["com.docker.compose.service"]: each for each in found}
    finally:
        compose("down", "--volumes")


@contextmanager
def _by_hand(
    engine: docker.DockerClient, project: str, port: int, image: str, folder: Path
) -> Iterator[dict[str, Container]]:
    file = described(port)
    containers: dict[str, Container] = {}
    with ExitStack() as undo:
        for name in file["volumes"]:
            undo.callback(engine.volumes.create(f"{project}-{name}").remove)
        network = engine.networks.create(f"{project}-default")
        undo.callback(network.remove)
        for name, service in file["services"].items():
            container = engine.containers.create(
                image,
                service["command"],
                environment=service["environment"],
                user=service["user"],
                network_mode=service.get("network_mode", network.name),
                ports={"8000/tcp": ("127.0.0.1", port)} if "ports" in service else None,
                volumes=[
                    each if each.startswith("/") else f"{project}-{each}"
                    for each in service["volumes"]
                ],
                cap_drop=service["cap_drop"],
                security_opt=service["security_opt"],
                read_only=service["read_only"],
                mem_limit=service["mem_limit"],
                memswap_limit=service["memswap_limit"],
                pids_limit=service["pids_limit"],
                tmpfs=dict.fromkeys(service["tmpfs"], ""),
                healthcheck={"test": service["healthcheck"]["test"]},
                log_config=LogConfig(
                    type=service["logging"]["driver"], config=service["logging"]["options"]
                ),
            )
            undo.callback(container.remove, force=True)
            container.start()
            containers[name] = container
        yield containers


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=10).status_code == 200
    except httpx2.TransportError:
        return False
