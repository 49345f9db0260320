"""The controller and its broker as containers, as compose.yaml describes them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import docker
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from ..support.calls import written
from ..support.composed import Composed, compose_file, composed, described, program

KNOWN_KEYS = {
    "image", "pull_policy", "command", "environment", "user", "volumes", "restart", "cap_drop",
    "security_opt", "read_only", "tmpfs", "healthcheck", "logging",
    "mem_limit", "memswap_limit", "pids_limit",
}  # fmt: skip
ENGINE_SOCKET = "/var/run/docker.sock"


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="module")
def running(
    engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Composed]:
    print("compose program:", " ".join(program()) or "none, by hand")
    with composed(engine, tmp_path_factory.mktemp("composed")) as services:
        yield services


@asynccontextmanager
async def connected(services: Composed) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {services.token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=120) as http,
        Client(streamable_http_client(f"{services.base}/mcp/v1", http_client=http)) as client,
    ):
        yield client


async def printed(client: Client, code: str, session_id: str = "") -> tuple[str, str]:
    """What code prints, and in which session."""
    result = await client.call_tool("execute_code", {"code": code, "session_id": session_id})
    told = result.structured_content
    assert told is not None, result.content
    return written(told), told["session_id"]


def applied(container: Any) -> dict[str, Any]:
    container.reload()
    return container.attrs


def test_each_service_has_little_of_roots_power_and_one_of_them_the_engines_socket() -> None:
    services = described()["services"]
    assert set(services["broker"]) == KNOWN_KEYS | {"network_mode"}
    assert set(services["controller"]) == KNOWN_KEYS | {"ports", "depends_on"}
    for service in services.values():
        assert service["image"] == "sandbox/controller:latest"
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] is True
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert services["broker"]["network_mode"] == "none"
    assert services["controller"]["ports"] == ["127.0.0.1:8000:8000"]
    assert "docker.sock" not in str(services["controller"])


@pytest.mark.anyio
async def test_a_client_runs_code_through_them_and_nothing_is_left(
    running: Composed, engine: docker.DockerClient
) -> None:
    async with connected(running) as client:
        text, session = await printed(client, "import os; print(os.getuid())")
        label = {"label": f"io.sandbox.uid={text.strip()}"}  # of no other sandbox
        assert len(engine.containers.list(filters=label)) == 1
        await client.call_tool("close_session", {"session_id": session})
    assert engine.containers.list(all=True, filters=label) == []


@pytest.mark.parametrize("service", ["controller", "broker"])
def test_neither_can_use_up_the_hosts_memory_or_processes(running: Composed, service: str) -> None:
    container = running.containers[service]
    host = applied(container)["HostConfig"]
    assert 0 < host["Memory"] <= 2 * 1024**3
    assert host["MemorySwap"] == host["Memory"]
    assert 0 < host["PidsLimit"] <= 512


def test_the_controller_has_neither_root_nor_the_engines_socket(running: Composed) -> None:
    container = running.containers["controller"]
    host = applied(container)["HostConfig"]
    assert (host["Privileged"], host["ReadonlyRootfs"], host["CapDrop"]) == (False, True, ["ALL"])
    mounts = applied(container)["Mounts"]
    assert {each["Type"] for each in mounts} == {"volume"}
    assert {each["Destination"] for each in mounts} == {"/var/lib/sandbox", "/run/sandbox"}
    status = container.exec_run(["cat", "/proc/1/status"]).output.decode()
    assert "Uid:\t10001\t10001\t10001\t10001" in status
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    for attempt in (f"test -S {ENGINE_SOCKET}", "echo > /run/sandbox/x", "rm /run/sandbox/*.sock"):
        assert container.exec_run(["sh", "-c", attempt]).exit_code != 0, attempt


def test_the_broker_has_no_network_and_no_capability(running: Composed) -> None:
    container = running.containers["broker"]
    assert applied(container)["HostConfig"]["NetworkMode"] == "none"
    assert not applied(container)["NetworkSettings"]["Ports"]
    assert (
        "CapEff:\t0000000000000000" in container.exec_run(["cat", "/proc/1/status"]).output.decode()
    )
    networks = container.exec_run(["cat", "/proc/net/dev"]).output.decode().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in networks] == ["lo"]


@pytest.mark.anyio
async def test_a_broker_that_is_killed_and_comes_back_costs_no_state(running: Composed) -> None:
    broker = running.containers["broker"]
    async with connected(running) as client:
        _, session = await printed(client, "kept = 41")
        broker.kill()
        broker.start()
        text = ""
        with anyio.fail_after(60):
            while text != "42\n":
                result = await client.call_tool(
                    "execute_code", {"code": "print(kept + 1)", "session_id": session}
                )
                told = result.structured_content or {}
                text = written(told)
        await client.call_tool("close_session", {"session_id": session})


def test_the_demo_passes_against_them(running: Composed) -> None:
    root = compose_file().parent
    done = subprocess.run(
        [sys.executable, "-m", "scripts.demo"],
        cwd=root,
        env=os.environ | {"SANDBOX_URL": running.base, "SANDBOX_TOKEN": running.token},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr + running.logs()
    assert running.base in done.stdout


def test_without_its_token_nobody_gets_in(running: Composed) -> None:
    assert httpx2.get(f"{running.base}/mcp/v1/sessions", timeout=30).status_code == 401


@pytest.mark.parametrize("service", ["broker", "controller"])
def test_health_is_reported_to_the_engine(running: Composed, service: str) -> None:
    container = running.containers[service]
    healthcheck = applied(container)["Config"]["Healthcheck"]["Test"]
    result = container.exec_run(healthcheck[1:])
    assert result.exit_code == 0, result.output.decode()
