"""One suite for every runtime: in memory, Docker by each way to an engine, and a broker."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sandbox.container import images
from sandbox.container.spec import ContainerSpec
from sandbox.runtimes.base import ContainerRuntime
from sandbox.runtimes.docker.runtime import DockerRuntime
from sandbox.testing import FakeEngine, FakeRuntime

from ..support.brokered import brokered
from ..support.engines import make_certificates, proxied, put_ssh, server_context
from ..support.specs import specs_of

WAYS = ("fake", "socket", "tcp", "tls", "ssh", "broker")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certificates")
    make_certificates(directory)
    return directory


@pytest.fixture(params=WAYS)
async def runtime(
    request: pytest.FixtureRequest,
    certificates: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[ContainerRuntime]:
    way: str = request.param
    if way == "fake":
        made: ContainerRuntime = FakeRuntime(FakeEngine(frozenset({images.reference("python")})))
        yield made
        await made.aclose()
        return
    if way == "broker":
        engine = DockerRuntime.connect_engine(environ={})
        async with brokered(engine, tmp_path) as made:
            yield made
        await engine.aclose()
        return
    environ: dict[str, str] = {}
    context = server_context(certificates) if way == "tls" else None
    async with proxied(context) as proxy:
        if way in ("tcp", "tls"):
            environ["DOCKER_HOST"] = proxy.url
        if way == "tls":
            environ |= {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(certificates)}
        if way == "ssh":
            put_ssh(tmp_path)
            monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
            environ["DOCKER_HOST"] = "ssh://somebody@engine.test"
        docker = DockerRuntime.connect_engine(environ=environ)
        # A proxy that nobody passed through would have tested another way.
        try:
            yield docker
            assert bool(proxy.accepted) == (way in ("tcp", "tls"))
        finally:
            await docker.aclose()


@pytest.fixture
async def make_spec(runtime: ContainerRuntime) -> AsyncIterator[Callable[..., ContainerSpec]]:
    """Makes specs as a session does; what was created by them is removed at the end."""
    async with specs_of(runtime) as make:
        yield make
