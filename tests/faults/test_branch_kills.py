"""Kills at random moments while a kernel is branched, frozen and rolled back: what is told then.

Each round has an order of its own by its seed. Whatever ends, each call is answered as a success or
an error, what is told to be there is there and has its state, and nothing else is left.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from sandbox.container.labels import LABEL_OWNER
from sandbox.runtimes.docker.runtime import DockerRuntime

from ..support.calls import call, written
from ..support.served import RUNTIME, Served, close_all, serve

pytestmark = pytest.mark.anyio

ROUNDS = 4
LATEST_KILL_S = 0.25
ENDED_S = 30.0
LOOK = "print(x)"


class Copies:
    """What callers were told of copies of the session's kernel, and what those must hold."""

    def __init__(self, client: Client, order: random.Random) -> None:
        self._client = client
        self._order = order
        self.branches: set[str] = set()
        self.checkpoints: set[str] = set()
        self.errors: list[str] = []

    async def tried(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that may fail; empty if it has, which is noted."""
        result = await self._client.call_tool(tool, arguments)
        if result.is_error:
            self.errors.append(str(result.content[0]))
            return {}
        return result.structured_content or {}

    async def make(self, times: int) -> None:
        """Branch, freeze and roll back, in a random order."""
        for number in range(times):
            match self._order.choice(("branch", "checkpoint", "rollback")):
                case "branch":
                    made = await self.tried("branch_kernel")
                    self.branches |= {made["kernel_id"]} if made else set()
                case "checkpoint":
                    name = f"c{number}-{self._order.randrange(10**6)}"
                    made = await self.tried("checkpoint_kernel", name=name)
                    self.checkpoints |= {name} if made else set()
                case _:
                    await self.tried("rollback_kernel", name="first")


async def kernels_of(client: Client) -> dict[str, dict[str, Any]]:
    """The kernels of the session, by id."""
    return {k["kernel_id"]: k for k in (await call(client, "list_kernels"))["kernels"]}


async def pid_of(client: Client, kernel_id: str, which: str = "getpid") -> int:
    """The number of a kernel's process, or of its parent, inside of its container."""
    code = f"import os; print(os.{which}())"
    return int(written(await call(client, "execute_code", code=code, kernel_id=kernel_id)))


async def processes(client: Client) -> int:
    """How many processes there are in the container."""
    code = "import os; print(sum(name.isdigit() for name in os.listdir('/proc')))"
    return int(written(await call(client, "execute_code", code=code)))


async def tidy(client: Client) -> None:
    """Let all go but one kernel, without checkpoints."""
    for kernel_id in (await kernels_of(client)).keys() - {"k-default"}:
        await call(client, "stop_kernel", kernel_id=kernel_id)
    for kept in (await call(client, "list_checkpoints"))["checkpoints"]:
        await call(client, "drop_checkpoint", name=kept["name"])


async def test_kernels_branches_and_checkpoints_are_killed_and_what_is_told_is_true(
    folder: Path, order: random.Random
) -> None:
    with serve(folder) as served, anyio.fail_after(ENDED_S):
        async with served.client() as client:
            await call(client, "execute_code", code="x = 7")
            before = await processes(client)
            for _ in range(ROUNDS):
                await one_round(client, order)
                await tidy(client)
                while await processes(client) > before:  # one that was replaced may just be ending
                    await anyio.sleep(0.01)
        await anyio.to_thread.run_sync(close_all, served)


async def one_round(client: Client, order: random.Random) -> None:
    await call(client, "checkpoint_kernel", name="first")
    branch = (await call(client, "branch_kernel"))["kernel_id"]
    victim = order.choice(("k-default", branch))
    pid = await pid_of(client, victim)
    copies = Copies(client, order)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(copies.make, 4)
        await anyio.sleep(order.uniform(0, LATEST_KILL_S))
        await call(client, "run_command", command=f"kill -9 {pid}; true")
    found = await kernels_of(client)
    assert copies.branches | {"k-default", branch} == found.keys()
    kept = {c["name"]: c for c in (await call(client, "list_checkpoints"))["checkpoints"]}
    assert copies.checkpoints | {"first"} == kept.keys()
    assert all(each["alive"] for each in kept.values()), "no checkpoint was killed"
    for kernel_id, kernel in found.items():
        result = await client.call_tool("execute_code", {"code": LOOK, "kernel_id": kernel_id})
        if result.is_error or (result.structured_content or {}).get("status") == "died":
            kernel = (await kernels_of(client))[kernel_id]
            assert kernel_id == victim
            assert kernel["state"] == "dead"
            assert RUNTIME == "runsc" or "SIGKILL" in kernel["reason"]
        else:
            assert (result.structured_content or {})["text"] == "7"
    for error in copies.errors:  # of the one that had been killed, and why; or there are too many
        expected = ("dead", "died", "ended", "not answer", "as many as its policy allows")
        assert any(word in error for word in expected), error
    name = order.choice(sorted(kept))
    await call(client, "rollback_kernel", name=name)
    assert written(await call(client, "execute_code", code=LOOK)) == "7\n"


async def test_a_checkpoint_that_is_killed_is_told_to_be_lost_and_the_others_are_kept(
    folder: Path,
) -> None:
    with serve(folder) as served, anyio.fail_after(ENDED_S):
        async with served.client() as client:
            await call(client, "execute_code", code="x = 7")
            there = "ls -d /proc/[0-9]* | sort"
            before = (await call(client, "run_command", command=there))["stdout"]
            await call(client, "checkpoint_kernel", name="lost")
            after = (await call(client, "run_command", command=there))["stdout"]
            await call(client, "checkpoint_kernel", name="kept")
            for new in set(after.split()) - set(before.split()):  # the listing's own have ended
                await call(client, "run_command", command=f"kill -9 {Path(new).name}; true")
            kept: dict[str, bool] = {"lost": True}
            while kept["lost"]:
                found = (await call(client, "list_checkpoints"))["checkpoints"]
                kept = {each["name"]: each["alive"] for each in found}
            assert kept == {"lost": False, "kept": True}
            refused = await client.call_tool("rollback_kernel", {"name": "lost"})
            assert refused.is_error
            assert "lost" in str(refused.content)
            await call(client, "rollback_kernel", name="kept")
            assert written(await call(client, "execute_code", code=LOOK)) == "7\n"
        await anyio.to_thread.run_sync(close_all, served)


async def test_a_controller_is_killed_and_the_next_one_finds_every_copy_that_was_told(
    folder: Path, engine: DockerRuntime, order: random.Random
) -> None:
    for number in range(2):
        with serve(folder) as killed:
            copies = await until_killed(killed, order, is_first=not number)
        with serve(folder) as following, anyio.fail_after(ENDED_S):
            async with following.client() as client:
                found = await kernels_of(client)
                assert copies.branches <= found.keys()
                kept = (await call(client, "list_checkpoints"))["checkpoints"]
                assert copies.checkpoints | {"first"} <= {each["name"] for each in kept}
                assert all(each["alive"] for each in kept)
                for each in kept:
                    await call(client, "rollback_kernel", name=each["name"])
                    assert written(await call(client, "execute_code", code=LOOK)) == "7\n"
                for kernel_id in found:
                    told = await call(client, "execute_code", code=LOOK, kernel_id=kernel_id)
                    assert written(told) == "7\n"
                for kernel_id in found.keys() - {"k-default"}:
                    await call(client, "stop_kernel", kernel_id=kernel_id)
                assert len(await containers_of(following, engine)) == 1
            if number:
                await anyio.to_thread.run_sync(close_all, following)
                assert await containers_of(following, engine) == []


async def test_a_supervisor_is_killed_and_its_session_is_told_to_be_lost_with_all_copies(
    folder: Path, engine: DockerRuntime, order: random.Random
) -> None:
    with serve(folder) as served, anyio.fail_after(2 * ENDED_S):
        for _ in range(2):
            async with served.client() as client:
                opened = await call(client, "open_session", reuse=False)
                session_id = opened["session_id"]
                here = {"session_id": session_id}
                code = "import os; x = 7; print(os.getppid())"
                parent = int(written(await call(client, "execute_code", code=code, **here)))
                copies: list[bool] = []

                async def make(client: Client = client, here: Any = here, all_: Any = copies):
                    for _ in range(6):
                        made = await client.call_tool("branch_kernel", here)
                        all_.append(not made.is_error)

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(make)
                    await anyio.sleep(order.uniform(0, LATEST_KILL_S))
                    end = {"command": f"kill -9 {parent}", **here}
                    await client.call_tool("run_command", end)
                assert not copies[-1]
                look = await client.call_tool("execute_code", {"code": LOOK, **here})
                assert look.is_error
            while await containers_of(served, engine):
                await anyio.sleep(0.05)
        await anyio.to_thread.run_sync(close_all, served)


async def until_killed(served: Served, order: random.Random, *, is_first: bool) -> Copies:
    """Make copies until the controller dies, and return what was told by then."""
    copies: Copies | None = None
    try:
        async with served.client() as client:
            await call(client, "execute_code", code="x = 7")
            if is_first:
                await call(client, "checkpoint_kernel", name="first")
            copies = Copies(client, order)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(copies.make, 100)
                await anyio.sleep(order.uniform(0.05, 2 * LATEST_KILL_S))
                kill(served)
                tasks.cancel_scope.cancel()
    except* (httpx2.TransportError, MCPError):
        pass  # a call was on its way
    assert copies is not None
    return copies


def kill(served: Served) -> None:
    served.process.kill()
    served.process.wait(30)


async def containers_of(served: Served, engine: DockerRuntime) -> list[str]:
    """The containers of this controller's state directory."""
    owner = (served.state / "controllers/serve/owner").read_text().strip()
    return [found.id for found in await engine.list({LABEL_OWNER: owner})]
