"""The controller as a container, as compose.yaml describes it; needs no compose program."""

from __future__ import annotations

import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import docker
import httpx2
import pytest
import yaml
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from sandbox import resources
from sandbox.runtimes.docker import build as builder
from sandbox.runtimes.docker.endpoint import find_endpoint

READY_TIMEOUT_S = 120
KNOWN_KEYS = {
    "image", "pull_policy", "environment", "ports", "volumes", "restart", "cap_drop",
    "security_opt", "read_only", "tmpfs", "healthcheck",
}  # fmt: skip


def described(port: int) -> dict[str, Any]:
    """The controller's service in compose.yaml, with its variables filled in."""
    root = resources.checkout()
    assert root is not None
    text = re.sub(
        r"\$\{SANDBOX_PUBLISHED_PORT:-\d+\}", str(port), (root / "compose.yaml").read_text()
    )
    return yaml.safe_load(text)["services"]["controller"]


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="module")
def controller(engine: docker.DockerClient) -> Iterator[tuple[str, Any]]:
    """A running controller in a container: its address and the container."""
    with closing(builder.connect(find_endpoint("", "", os.environ))) as client:
        reference = builder.build(client, "controller", progress=lambda line: None)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    service = described(port)
    state = engine.volumes.create(f"test-compose-{uuid.uuid4().hex[:8]}")
    container = engine.containers.create(
        reference,
        environment=service["environment"],
        ports={"8000/tcp": ("127.0.0.1", port)},
        volumes=[volume.replace("state:", f"{state.name}:") for volume in service["volumes"]],
        cap_drop=service["cap_drop"],
        security_opt=service["security_opt"],
        read_only=service["read_only"],
        tmpfs=dict.fromkeys(service["tmpfs"], ""),
        healthcheck={"test": service["healthcheck"]["test"]},
    )
    try:
        container.start()
        base = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not answers(f"{base}/readyz"):
            assert time.monotonic() < deadline, container.logs().decode()
            time.sleep(0.1)
        yield base, container
    finally:
        container.remove(force=True)
        state.remove()


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=10).status_code == 200
    except httpx2.TransportError:
        return False


def test_it_is_published_on_this_machine_only_and_has_little_of_roots_power() -> None:
    service = described(8000)
    assert set(service) == KNOWN_KEYS
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    assert service["image"] == "sandbox/controller:latest"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True


@pytest.mark.anyio
async def test_a_client_runs_code_through_it_and_nothing_is_left(
    controller: tuple[str, Any], engine: docker.DockerClient
) -> None:
    base, container = controller
    # As people find it, whatever the log around it looks like.
    shown = container.exec_run(["python3", "-m", "sandbox", "token", "show"])
    headers = {"Authorization": f"Bearer {shown.output.decode().split()[-1]}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=120) as http,
        Client(streamable_http_client(f"{base}/mcp/v1", http_client=http)) as client,
    ):
        result = await client.call_tool("execute_code", {"code": "print(6 * 7)"})
        assert result.structured_content is not None
        assert result.structured_content["outputs"][0]["text"] == "42\n"
        session = result.structured_content["session_id"]
        running = engine.containers.list(filters={"label": f"io.sandbox.session={session}"})
        assert len(running) == 1
        await client.call_tool("close_session", {"session_id": session})
    label = {"label": f"io.sandbox.session={session}"}
    assert engine.containers.list(all=True, filters=label) == []


def test_without_its_token_nobody_gets_in(controller: tuple[str, Any]) -> None:
    base, _ = controller
    assert httpx2.get(f"{base}/mcp/v1/sessions", timeout=30).status_code == 401


def test_its_health_is_reported_to_the_engine(controller: tuple[str, Any]) -> None:
    _, container = controller
    healthcheck = container.attrs["Config"]["Healthcheck"]["Test"]
    result = container.exec_run(healthcheck[1:])
    assert result.exit_code == 0, result.output.decode()
