"""Clients that shake hands, as they are: some for each call, and they keep their variables.

Those whose packages cannot share our environment run in one of their own.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from ..support.calls import call
from ..support.environments import python_with
from ..support.inspector import inspect, installed, over_http
from ..support.rawclient import RawClient
from ..support.served import Served

pytestmark = pytest.mark.anyio

CALLS = 6
LINES = ["x = 1", *(["x += 1; print('x is', x)"] * (CALLS - 1))]
WANTED = [f"x is {n}" for n in range(2, CALLS + 1)]
CLIENTS = Path(__file__).parent / "clients"


def run_client(script: str, served: Served, *words: str) -> list[str]:
    """Run a client in the environment of its packages; what each call showed."""
    done = subprocess.run(
        [python_with("langchain"), "-I", CLIENTS / script, served.url, served.token, *words],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(shown: list[str], served: Served) -> None:
    """Each call went on where the one before left off, in one session, and was told so."""
    assert [line for each in shown for line in each.splitlines() if "x is" in line] == WANTED
    assert len(sessions(served)) == 1


def sessions(served: Served) -> list[dict[str, Any]]:
    answer = httpx2.get(f"{served.url}/sessions", headers=served.headers, timeout=30)
    return answer.json()["sessions"]


def test_langchains_adapter_keeps_variables_over_its_calls(clean: Served) -> None:
    shown = run_client("langchain_calls.py", clean, *LINES)
    check(shown, clean)
    assert "goes on with session" not in shown[0]
    assert all("goes on with session" in each for each in shown[1:])


@pytest.mark.parametrize("each", [["--each"], []], ids=["each", "one"])
def test_the_official_client_of_1_keeps_variables(clean: Served, each: list[str]) -> None:
    check(run_client("mcp1_calls.py", clean, *each, *LINES), clean)


def test_the_inspector_keeps_variables_from_one_run_to_the_next(
    clean: Served, tmp_path: Path
) -> None:
    inspector = installed()
    words = ["--method", "tools/call", "--tool-name", "execute_code", "--tool-arg"]
    shown: list[str] = []
    for line in LINES:
        result = inspect(inspector, tmp_path, *over_http(clean), *words, f"code={line}")
        shown.append("\n".join(each.get("text", "") for each in result["content"]))
    check(shown, clean)


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
async def test_the_official_client_of_2_keeps_variables(clean: Served, era: str) -> None:
    shown: list[str] = []
    for line in LINES:
        async with clean.client(era) as client:
            result = await client.call_tool("execute_code", {"code": line})
            shown.append("\n".join(getattr(each, "text", "") for each in result.content))
    check(shown, clean)


@pytest.mark.parametrize("says_goodbye", [True, False])
async def test_a_client_that_shakes_hands_for_each_call_keeps_variables(
    clean: Served, says_goodbye: bool
) -> None:
    shown: list[str] = []
    async with clean.http() as http:
        for line in LINES:
            client = RawClient(clean, http)
            await client.begin()
            shown.append(await client.run(line))
            if says_goodbye:
                await client.end()
    check(shown, clean)


async def test_two_conversations_of_one_token_do_not_mix(clean: Served) -> None:
    async with clean.client("legacy") as one, clean.client("legacy") as two:
        for client, value in ((one, 1), (two, 2)):
            await call(client, "execute_code", code=f"x = {value}")
        for _ in range(3):
            for client, value in ((one, 1), (two, 2)):
                result = await client.call_tool("execute_code", {"code": "print('x is', x)"})
                assert f"x is {value}" in str(result.content)
    assert len(sessions(clean)) == 2


async def test_two_raw_conversations_that_take_turns_do_not_mix(clean: Served) -> None:
    async with clean.http() as http:
        clients = [RawClient(clean, http) for _ in range(2)]
        for client in clients:
            await client.begin()
        for number, client in enumerate(clients):
            await client.run(f"x = {number}")
        for _ in range(3):
            for number, client in enumerate(clients):
                assert f"x is {number}" in await client.run("print('x is', x)")


async def test_many_that_come_at_once_after_one_has_gone_do_not_share(clean: Served) -> None:
    seen: list[bool] = []
    async with clean.http() as http:
        first = RawClient(clean, http)
        await first.begin()
        await first.run("x = 1")
        await first.end()
        clients = [RawClient(clean, http) for _ in range(3)]
        for client in clients:
            await client.begin()

        async def come(client: RawClient) -> None:
            seen.append("x is 1" in await client.run("print('x is', globals().get('x'))"))

        async with anyio.create_task_group() as tasks:
            for client in clients:
                tasks.start_soon(come, client)
    assert sorted(seen) == [False, False, True]
