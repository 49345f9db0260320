"""What an attack costs others: a served controller, and a neighbour whose answers are timed.

The neighbour is another principal, with a token of its own, that executes ``1 + 1`` once a second
through the official client. It is a process (``python -m tests.support.neighbour``), so that the
work of a test distorts none of its times, and makes a new connection for each call, so that a
controller which takes no more of them is noticed. :meth:`Controller.watched` says what a block cost
it, and what the block took of the controller's memory and descriptors: the peak, which the kernel
keeps (``VmHWM``, reset through ``clear_refs``: proc(5)), so that none is missed between two looks.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from .served import Served, sandbox, serve

ROOT = Path(__file__).parents[2]
MIB = 1024 * 1024
ANSWER_S = 1.0
"""The longest that a neighbour may wait for ``1 + 1`` on a machine that is not busy otherwise."""
BUSY = 3
"""How many times longer than before the attack: a machine that runs other things is slow alone."""
GROWTH_BYTES = 200 * MIB
READY_S = 10.0
QUIET_ANSWERS = 3
AFTER_ANSWERS = 3
PATIENCE_S = 150.0
TOKEN = "NEIGHBOUR_TOKEN"  # the name of a variable, not a token
ALL_SCOPES = "session,execute,terminal,files:read,files:write"


@dataclass(frozen=True)
class Answer:
    """One answer to the neighbour, in seconds of the machine's monotonic clock."""

    began_s: float
    ended_s: float
    fault: str
    """What was wrong with it; empty when it was 2."""

    @property
    def took_s(self) -> float:
        return self.ended_s - self.began_s


@dataclass
class Watch:
    """What a block cost, once it has ended."""

    quiet_s: float
    """The neighbour's worst answer before it."""
    answers: list[Answer] = field(default_factory=list[Answer])
    """All that ended during it, and some after it."""
    growth_bytes: int = 0
    """The most that the controller's memory grew by."""
    kept_bytes: int = 0
    """What of that it had still afterwards."""
    descriptors: int = 0
    """How many more it had open afterwards."""

    @property
    def worst_s(self) -> float:
        return max(answer.took_s for answer in self.answers)

    @property
    def faults(self) -> set[str]:
        return {answer.fault for answer in self.answers} - {""}

    def check(self, growth_bytes: int = GROWTH_BYTES) -> None:
        """The neighbour was served as if nobody attacked, and the memory stayed in bounds."""
        assert not self.faults, self
        assert len(self.answers) >= AFTER_ANSWERS, self
        assert self.worst_s < max(ANSWER_S, BUSY * self.quiet_s), self
        assert self.growth_bytes < growth_bytes, self

    def __str__(self) -> str:
        return (
            f"{len(self.answers)} answers, the worst after {self.worst_s:.2f} s "
            f"({self.quiet_s:.2f} s before), memory +{self.growth_bytes / MIB:.0f} MiB "
            f"(+{self.kept_bytes / MIB:.0f} afterwards), descriptors {self.descriptors:+d}"
            + "".join(f", {fault}" for fault in sorted(self.faults))
        )


class Neighbour:
    """The process of the neighbour.

    Args:
        process: It.
        path: Where it writes its answers, a line each.
    """

    def __init__(self, process: subprocess.Popen[bytes], path: Path) -> None:
        self.process = process
        self._path = path

    def stop(self) -> None:
        """End it; may be called twice."""
        self.process.terminate()
        self.process.wait(30)

    def answers(self) -> list[Answer]:
        """All so far."""
        lines = self._path.read_text().split("\n")[:-1]
        return [Answer(*json.loads(line)) for line in lines]

    async def more(self, count: int) -> list[Answer]:
        """Wait for answers to calls that begin from now on."""
        since = time.monotonic()
        with anyio.fail_after(PATIENCE_S):
            while True:
                found = [answer for answer in self.answers() if answer.began_s >= since]
                if len(found) >= count:
                    return found
                assert self.process.poll() is None, "the neighbour has ended"
                await anyio.sleep(0.1)


class Controller:
    """A served controller with a neighbour, which can be killed and started again.

    Args:
        folder: For its state, its log and the neighbour's answers.
        env: More settings, as variables.
    """

    def __init__(self, folder: Path, **env: str) -> None:
        self._folder = folder
        self._env = env
        self._stack = ExitStack()
        self._token = ""
        self.ready_s = 0.0
        self.served: Served
        self.neighbour: Neighbour

    def start(self) -> float:
        """Start both; how long the controller took until it was ready, in seconds."""
        began = time.monotonic()
        with few_descriptors():
            self.served = self._stack.enter_context(serve(self._folder, **self._env))
        self.ready_s = time.monotonic() - began
        self._token = self._token or self.token("neighbour")
        path = self._folder / "answers"
        self.neighbour = self._stack.enter_context(
            beside(self.served.url, self._token, path, ["cell"])
        )
        return self.ready_s

    def stop(self) -> None:
        """Stop both; sessions stay."""
        self._stack.close()

    def kill(self) -> None:
        """End the controller as an out-of-memory killer does."""
        self.served.process.kill()
        self.served.process.wait(30)

    async def restart(self) -> float:
        """After :meth:`kill`: start both on the same state; the seconds until it was ready."""
        await anyio.to_thread.run_sync(self.stop)
        return await anyio.to_thread.run_sync(self.start)

    def token(self, principal: str, scopes: str = ALL_SCOPES) -> str:
        """A token of a principal's own, made as an operator does."""
        words = ("--principal", principal, "--scopes", scopes, "--policies", "*", "--json")
        done = sandbox(self.served.state, "token", "create", *words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["token"]

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[Watch]:
        """Watch what the block costs; complete some answers after its end."""
        before = await self.neighbour.more(QUIET_ANSWERS)
        watch = Watch(quiet_s=max(answer.took_s for answer in before))
        usage = Usage(self.served.process.pid)
        descriptors, resident, began = usage.descriptors(), usage.begin(), time.monotonic()
        yield watch
        await self.neighbour.more(AFTER_ANSWERS)
        watch.answers = [a for a in self.neighbour.answers() if a.ended_s > began]
        watch.growth_bytes = usage.peak() - resident
        watch.kept_bytes = usage.resident() - resident
        watch.descriptors = usage.descriptors() - descriptors


@contextmanager
def few_descriptors() -> Iterator[None]:
    """Let what is started in the block begin with the usual soft limit of descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Usage:
    """What a process has of the machine, as the kernel counts it.

    Args:
        pid: The process.
    """

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def begin(self) -> int:
        """Forget the peak so far; the memory now, in bytes."""
        (self._folder / "clear_refs").write_text("5")
        return self.resident()

    def peak(self) -> int:
        """The most memory since, in bytes."""
        return self._field("VmHWM")

    def resident(self) -> int:
        """The memory now, in bytes."""
        return self._field("VmRSS")

    def descriptors(self) -> int:
        """The open descriptors."""
        return len(os.listdir(self._folder / "fd"))

    def _field(self, name: str) -> int:
        for line in (self._folder / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        raise LookupError(name)


@contextmanager
def beside(url: str, token: str, path: Path, works: Iterable[str]) -> Iterator[Neighbour]:
    """Run a neighbour for the time of a block, who does these of ``WORKS`` in turn."""
    path.write_text("")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.neighbour", url, str(path), *works],
        cwd=ROOT,
        env={**os.environ, TOKEN: token},
        stdin=subprocess.DEVNULL,
    )
    neighbour = Neighbour(process, path)
    try:
        yield neighbour
    finally:
        neighbour.stop()


@asynccontextmanager
async def connected(url: str, token: str, *, source: str = "127.0.0.1") -> AsyncIterator[Client]:
    """An official client that makes a new connection for each call, from an address of loopback."""
    limits = httpx2.Limits(max_keepalive_connections=0)
    transport = httpx2.AsyncHTTPTransport(local_address=source, limits=limits)
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(transport=transport, headers=headers, timeout=PATIENCE_S) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        yield client


async def cell(client: Client, number: int) -> object:
    """``1 + 1``"""
    found = await call(client, "execute_code", code="1 + 1")
    return found["text"] == "2"


async def file(client: Client, number: int) -> object:
    """Write a file and read it again."""
    path, content = f"honest-{number % 10}", f"what the {number}th call wrote"
    await call(client, "write_file", path=path, content=content)
    return (await call(client, "read_file", path=path))["content"] == content


async def command(client: Client, number: int) -> object:
    """Run a command."""
    found = await call(client, "run_command", command=f"echo $(({number} * 2))")
    return found["stdout"] == f"{number * 2}\n"


async def terminal(client: Client, number: int) -> object:
    """Type into a terminal until what it says is on the screen."""
    where = {"terminal_id": (await call(client, "open_terminal"))["terminal_id"]}
    typed = f"echo $(({number} + 1000000))"
    await call(client, "write_terminal", **where, text=typed, keys=["enter"])
    try:
        with anyio.fail_after(PATIENCE_S):
            while True:
                found = await call(client, "read_terminal", **where, wait=1)
                if any(line.strip() == str(number + 1000000) for line in found["screen"]):
                    return True
    finally:
        await call(client, "close_terminal", **where)


WORKS = {work.__name__: work for work in (cell, file, command, terminal)}


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    """Call a tool that must succeed; its result."""
    result = await client.call_tool(tool, arguments)
    if result.is_error:
        raise AssertionError(f"{tool}: {result.content!r:.300}")
    return result.structured_content


async def ask(client: Client, work: str, number: int) -> str:
    """Do one piece of work; what was wrong with the answer."""
    try:
        return "" if await WORKS[work](client, number) else f"{work}: a wrong answer"
    except Exception as exc:  # this program's edge: it was not served
        return f"{work}: {type(exc).__name__}: {exc!s:.300}"


async def run(url: str, token: str, path: Path, works: tuple[str, ...]) -> None:
    """Be the neighbour, until killed; a connection that breaks is a fault, and made again."""
    with path.open("a") as sink:

        def note(began_s: float, fault: str) -> None:
            print(json.dumps([began_s, time.monotonic(), fault]), file=sink, flush=True)

        numbers = itertools.count(1)
        while True:
            began_s = time.monotonic()
            try:
                async with connected(url, token) as client:
                    await ask(client, works[0], 0)  # opens its session, and is not counted
                    for number in numbers:
                        began_s = time.monotonic()
                        note(began_s, await ask(client, works[number % len(works)], number))
                        await anyio.sleep(max(0.0, began_s + 1 - time.monotonic()))
            except Exception as exc:  # this program's edge
                note(began_s, f"the connection: {type(exc).__name__}: {exc!s:.300}")
                await anyio.sleep(1)


if __name__ == "__main__":
    anyio.run(run, sys.argv[1], os.environ[TOKEN], Path(sys.argv[2]), tuple(sys.argv[3:]))
