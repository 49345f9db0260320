"""Where attacks run: sessions as callers get them, and an unguarded container as the control.

An attack is a function. Its source goes, behind ``inside.py``, to the Python of the image and comes
back as what it returned. ``sandbox`` runs it behind every barrier, through the project's own
session layer; ``unguarded`` runs it as root without a filter, to show that the attack itself is
real on this machine.

``SANDBOX_TEST_RUNTIME`` (``runc`` or ``runsc``) chooses what runs the containers.
"""

from __future__ import annotations

import inspect
import itertools
import json
import os
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import docker
import pytest
from docker.models.containers import Container

from sandbox.audit import verify
from sandbox.cli.wiring import controller
from sandbox.commands.models import CommandResult
from sandbox.config import Settings
from sandbox.container import images
from sandbox.errors import SandboxError, SessionLost
from sandbox.kernels.models import ExecutionResult
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session

CANARY = "SANDBOX_CANARY"
INSIDE = (Path(__file__).parent / "inside.py").read_text()
RUNTIME = os.environ.get("SANDBOX_TEST_RUNTIME", "")

# In the controller's own environment before any session is opened: it must be seen nowhere inside.
os.environ[CANARY] = "canary-of-the-controllers-environment"


def program(attack: Callable[..., Any], *arguments: object) -> str:
    """The Python text that runs an attack and prints, as its last line, what it returned."""
    source = textwrap.dedent(inspect.getsource(attack))
    given = ", ".join(map(repr, arguments))
    return f"{INSIDE}\n\n{source}\nprint('\\n' + json.dumps({attack.__name__}({given})))\n"


class Attacked:
    """A session under attack.

    Args:
        session: The session.
        manager: Its manager.
        caller: Whose it is.
    """

    def __init__(self, session: Session, manager: SessionManager, caller: Caller) -> None:
        self.session = session
        self.manager = manager
        self.caller = caller
        self.gvisor = session.info().runtime == "runsc"

    async def attack(self, attack: Callable[..., Any], *arguments: object) -> Any:
        """Run an attack inside as a command; what it returned.

        Raises:
            SessionLost: The command, or the session with it, is lost.
        """
        result = await self.shell("python3 -", stdin=program(attack, *arguments), timeout_s=120)
        if result.status == "lost":
            raise SessionLost(result.reason or "")
        assert result.exit_code == 0, f"{result.stderr}\n{result.stdout}"
        return json.loads(result.stdout.strip().splitlines()[-1])

    async def shell(self, command: str, *, stdin: str = "", timeout_s: float = 60) -> CommandResult:
        """Run a shell command inside."""
        async with self.session.use():
            return await self.session.commands.run(
                command, stdin=stdin.encode(), timeout_s=timeout_s
            )

    async def cell(self, code: str, *, timeout_s: float = 60) -> ExecutionResult:
        """Run a cell in the session's first kernel, to its end."""
        async with self.session.use():
            execution = await self.session.kernels.execute(
                textwrap.dedent(code), timeout_s=timeout_s
            )
            with anyio.fail_after(timeout_s + 60):
                while (result := await execution.wait(timeout_s)).status == "running":
                    pass
            return result

    async def restart(self) -> None:
        """Restart the session's first kernel, dead or alive."""
        async with self.session.use():
            await self.session.kernels.restart()

    async def result_of(self, execution_id: str) -> ExecutionResult:
        """How an earlier execution of this caller's stands, as its id finds it."""
        found = await self.manager.execution(self.caller, execution_id)
        return found if isinstance(found, ExecutionResult) else found.snapshot()

    async def is_alive(self) -> bool:
        """Whether it still does its work: a command and a cell."""
        command = await self.shell("echo alive")
        cell = await self.cell("print('alive')")
        return command.stdout.strip() == "alive" and cell.status == "ok"

    async def fate(self, within_s: float = 90) -> str:
        """What a caller gets next: ``alive``, or the code of the error; never nothing."""
        with anyio.fail_after(within_s):
            while True:
                try:
                    return "alive" if await self.is_alive() else "dead"
                except SandboxError as exc:
                    if exc.code != "link_lost":  # which says: try again
                        return exc.code
                    await anyio.sleep(0.1)


class Unguarded:
    """A container with none of our barriers: root, the usual capabilities, no filter.

    Args:
        container: The container, running.
    """

    def __init__(self, container: Container) -> None:
        self.container = container
        self.x86_64 = os.uname().machine == "x86_64"

    async def attack(self, attack: Callable[..., Any], *arguments: object) -> Any:
        """Run an attack where nothing stops it; what it returned."""

        def run() -> Any:
            code, output = self.container.exec_run(["python3", "-c", program(attack, *arguments)])
            assert code == 0, output.decode(errors="replace")
            return json.loads(output.decode().strip().splitlines()[-1])

        return await anyio.to_thread.run_sync(run)


@contextmanager
def may_end_in(*codes: str) -> Iterator[None]:
    """Let the block end in a ``SandboxError`` of one of these codes, and of no other."""
    try:
        yield
    except SandboxError as exc:
        if exc.code not in codes:
            raise


Opener = Callable[..., AbstractAsyncContextManager[Attacked]]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The only backend: the link is asyncio's."""
    return "asyncio"


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The engine, to look at containers from outside."""
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="session")
def unguarded(engine: docker.DockerClient) -> Iterator[Unguarded]:
    """The control: the same image without the barriers."""
    container = engine.containers.create(
        images.reference("python"),
        ["-c", "import time; time.sleep(3600)"],
        entrypoint=["python3"],
        user="0:0",
        security_opt=["seccomp=unconfined", "apparmor=unconfined"],
        network_mode="none",
        init=True,
        labels={"io.sandbox.test": "unguarded"},
    )
    try:
        container.start()
        yield Unguarded(container)
    finally:
        container.remove(force=True, v=True)


@pytest.fixture(scope="session")
async def manager(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SessionManager]:
    """A controller of its own, with a state directory of its own."""
    settings = Settings(
        state_dir=tmp_path_factory.mktemp("state"),
        runtime=RUNTIME,  # pyright: ignore[reportArgumentType]  # checked by the model
    )
    async with controller(settings, "run") as opened:
        yield opened
    verdict = verify(settings.state_dir / "controllers/run-1/audit", "run-1")
    assert verdict.is_intact, verdict.fault  # no attack has left a mark on the record


@pytest.fixture(scope="session")
def opener(manager: SessionManager) -> Opener:
    """Opens a session for the time of a block; each is of a principal of its own unless named."""
    numbers = itertools.count()

    @asynccontextmanager
    async def opened(*, policy: str = "", principal: str = "") -> AsyncIterator[Attacked]:
        caller = Caller(principal=principal or f"attacker-{next(numbers)}")
        session = await manager.open(caller, policy=policy, reuse=False)
        try:
            yield Attacked(session, manager, caller)
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(30):
                await manager.close(caller, session.session_id)

    return opened


@pytest.fixture(scope="session")
async def sandbox(opener: Opener) -> AsyncIterator[Attacked]:
    """A session for attacks that leave it alive."""
    async with opener() as attacked:
        yield attacked


@pytest.fixture(scope="session")
async def neighbour(opener: Opener) -> AsyncIterator[Attacked]:
    """Another principal's session, which no attack may disturb."""
    async with opener() as attacked:
        yield attacked


@pytest.fixture
async def victim(opener: Opener) -> AsyncIterator[Attacked]:
    """A fresh session for an attack that may end it."""
    async with opener() as attacked:
        yield attacked
