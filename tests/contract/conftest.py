"""One suite for every runtime: in memory, and Docker by each way to an engine."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sandbox import images, resources
from sandbox.policy import load, seccomp_profile
from sandbox.runtimes.base import ContainerRuntime
from sandbox.runtimes.docker import DockerRuntime
from sandbox.runtimes.fake import FakeEngine, FakeRuntime
from sandbox.spec import ContainerSpec, SessionIdentity, compile_spec, new_session_id, new_uid

from .engines import make_certificates, proxied, put_ssh, server_context

WAYS = ("fake", "socket", "tcp", "tls", "ssh")
LABEL = "io.sandbox.contract-test"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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
async def make_spec(runtime: ContainerRuntime) -> AsyncIterator[Callable[[], ContainerSpec]]:
    """Makes specs as a session does; what was created by them is removed at the end."""
    run = uuid.uuid4().hex
    policies = load(resources.policies())
    policy = policies.get(policies.default)
    seccomp = seccomp_profile()
    engine = await runtime.engine()

    def make() -> ContainerSpec:
        identity = SessionIdentity(
            session_id=new_session_id(),
            principal="contract",
            owner=run,
            uid=new_uid(),
            created_at=time.time(),
            expires_at=time.time() + 600,
        )
        spec = compile_spec(
            policy,
            identity,
            image=images.reference(policy.image),
            runtimes=engine.runtimes,
            seccomp=seccomp,
            cpus_available=engine.cpus,
        )
        return spec.model_copy(update={"labels": {**spec.labels, LABEL: run}})

    yield make
    for left in await runtime.list({LABEL: run}):
        await runtime.remove(left.id)
