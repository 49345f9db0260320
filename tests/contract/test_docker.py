"""What only a real engine can show."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
import docker
import pytest

from sandbox.container.spec import ContainerSpec
from sandbox.errors import ConfigError, EngineUnavailable, SessionLost
from sandbox.link.link import Link
from sandbox.runtimes.docker.runtime import DockerRuntime

from ..support.engines import engine_path, make_certificates, proxied, put_ssh, server_context
from ..support.specs import linked, running, specs_of

pytestmark = pytest.mark.anyio

FORK_BOMB = (
    "import os, signal\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "while True:\n"
    "    try: os.fork()\n"
    "    except OSError: pass\n"
)


@pytest.fixture
async def runtime() -> AsyncIterator[DockerRuntime]:
    runtime = DockerRuntime.connect_engine(environ={})
    yield runtime
    await runtime.aclose()


@pytest.fixture
async def make_spec(runtime: DockerRuntime) -> AsyncIterator[Callable[[], ContainerSpec]]:
    async with specs_of(runtime) as make:
        yield make


@pytest.fixture
def engine() -> docker.APIClient:
    return docker.APIClient(f"unix://{engine_path()}", version="auto")


@pytest.mark.timed
async def test_a_container_full_of_forking_processes_is_gone_within_two_seconds(
    runtime: DockerRuntime, make_spec: Callable[[], ContainerSpec]
) -> None:
    spec = make_spec().model_copy(update={"command": ("/usr/bin/python3", "-c", FORK_BOMB)})
    container_id = await running(runtime, spec)

    async def is_full() -> bool:
        return (await runtime.stats(container_id)).pids > spec.pids_limit * 0.9

    await until(is_full)
    began = time.monotonic()
    await runtime.remove(container_id)
    assert time.monotonic() - began < 2
    assert (await runtime.inspect(container_id)).state == "missing"
    assert processes_of(spec.uid) == []


async def test_a_profile_of_apparmor_is_demanded_where_there_is_apparmor_and_nowhere_ignored(
    runtime: DockerRuntime, engine: docker.APIClient
) -> None:
    assert (await runtime.engine()).apparmor == ""
    demanding = DockerRuntime.connect_engine(environ={}, apparmor="sandbox")
    try:
        if any("apparmor" in option for option in engine.info()["SecurityOptions"]):
            assert (await demanding.engine()).apparmor == "sandbox"
        else:
            with pytest.raises(ConfigError, match="no AppArmor"):
                await demanding.engine()
    finally:
        await demanding.aclose()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something holds."""
    with anyio.fail_after(30):
        while not await holds():  # an engine does not tell by itself
            await anyio.sleep(0.05)


def status_of(pid: int) -> str:
    """What the kernel says of a process; nothing when there is none."""
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""


def processes_of(uid: int) -> list[str]:
    """The names of a user's processes on this machine."""
    statuses = [status_of(int(e.name)) for e in Path("/proc").iterdir() if e.name.isdecimal()]
    return [status.splitlines()[0] for status in statuses if f"Uid:\t{uid}\t" in status]


def children_named(word: bytes) -> list[bytes]:
    """The command lines of our children, dead ones too, that hold a word."""
    lists = [path.read_text() for path in Path(f"/proc/{os.getpid()}/task").glob("*/children")]
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in " ".join(lists).split()]
    return [command for command in commands if word in command or not command]


async def test_removing_twice_at_once_does_no_harm(
    runtime: DockerRuntime, make_spec: Callable[[], ContainerSpec]
) -> None:
    container_id = await running(runtime, make_spec())
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(runtime.remove, container_id)
    assert (await runtime.inspect(container_id)).state == "missing"


async def test_the_exec_of_a_link_ends_when_the_link_is_closed(
    runtime: DockerRuntime, make_spec: Callable[[], ContainerSpec], engine: docker.APIClient
) -> None:
    container_id = await running(runtime, make_spec())
    async with linked(await runtime.connect(container_id)):
        [exec_id] = engine.inspect_container(container_id)["ExecIDs"]
        assert engine.exec_inspect(exec_id)["Running"]

    async def has_ended() -> bool:
        return not engine.inspect_container(container_id)["ExecIDs"]

    await until(has_ended)
    engine.close()


async def test_the_bridge_runs_as_the_session_and_can_gain_nothing(
    runtime: DockerRuntime, make_spec: Callable[[], ContainerSpec], engine: docker.APIClient
) -> None:
    spec = make_spec()
    container_id = await running(runtime, spec)
    async with linked(await runtime.connect(container_id)):
        [exec_id] = engine.inspect_container(container_id)["ExecIDs"]
        told = engine.exec_inspect(exec_id)
        status = status_of(told["Pid"])
    assert told["ProcessConfig"]["user"] == f"{spec.uid}:{spec.gid}"
    assert not told["ProcessConfig"]["privileged"]
    assert not told["ProcessConfig"]["tty"]
    assert "NoNewPrivs:\t1" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "Seccomp:\t2" in status
    engine.close()


async def test_a_main_process_that_ends_leaves_an_exited_container_without_links(
    runtime: DockerRuntime, make_spec: Callable[[], ContainerSpec]
) -> None:
    spec = make_spec().model_copy(update={"command": ("/bin/sh", "-c", "exit 3")})
    container_id = await running(runtime, spec)

    async def has_ended() -> bool:
        return (await runtime.inspect(container_id)).state == "exited"

    await until(has_ended)
    assert (await runtime.inspect(container_id)).exit_code == 3
    with pytest.raises(SessionLost):
        await runtime.connect(container_id)
    with pytest.raises(SessionLost):
        await runtime.stats(container_id)


async def test_a_container_without_a_bridge_says_so_instead_of_breaking_the_protocol(
    runtime: DockerRuntime,
    make_spec: Callable[[], ContainerSpec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sandbox.runtimes.docker.runtime.BRIDGE", ["/nowhere/python3"])
    container_id = await running(runtime, make_spec())
    link = Link(await runtime.connect(container_id), initiator=True, hello={})
    with anyio.fail_after(20):
        await link.run()
    assert isinstance(link.error, SessionLost)
    assert "/nowhere/python3" in link.error.message


async def test_a_foreign_containers_presence_changes_nothing(
    runtime: DockerRuntime, make_spec: Callable[[], ContainerSpec]
) -> None:
    spec = make_spec()
    await runtime.create(spec)
    assert await runtime.list({**spec.labels, "io.sandbox.owner": "somebody else"}) == []


@pytest.mark.parametrize("what", ["an unknown certificate", "no certificate"])
async def test_an_engine_that_cannot_prove_itself_or_trusts_us_not_is_unavailable(
    what: str, certificates: Path, tmp_path: Path
) -> None:
    make_certificates(tmp_path)
    environ = {"DOCKER_TLS_VERIFY": "1"}
    async with proxied(server_context(certificates)) as proxy:
        environ["DOCKER_HOST"] = proxy.url
        if what == "no certificate":
            (tmp_path / "ca.pem").write_bytes((certificates / "ca.pem").read_bytes())
        environ["DOCKER_CERT_PATH"] = str(tmp_path)
        runtime = DockerRuntime.connect_engine(environ=environ)
        with anyio.fail_after(20), pytest.raises(EngineUnavailable):
            await runtime.engine()
        await runtime.aclose()


async def test_ssh_that_fails_is_an_engine_that_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ssh").write_text("#!/bin/sh\nexit 255\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    runtime = DockerRuntime.connect_engine(host="ssh://nobody@engine.test", environ={})
    with anyio.fail_after(20), pytest.raises(EngineUnavailable):
        await runtime.engine()
    await runtime.aclose()


async def test_no_ssh_process_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_ssh(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    runtime = DockerRuntime.connect_engine(host="ssh://somebody@engine.test", environ={})
    before = children_named(b"")
    await runtime.engine()
    await runtime.aclose()
    assert children_named(b"dial-stdio") == [each for each in before if not each]


async def test_an_engine_says_which_api_it_speaks(engine: docker.APIClient) -> None:
    async with proxied() as proxy:
        runtime = DockerRuntime.connect_engine(host=proxy.url, environ={})
        info = await runtime.engine()
        await runtime.aclose()
    assert info.api_version == engine.version()["ApiVersion"]
    engine.close()
