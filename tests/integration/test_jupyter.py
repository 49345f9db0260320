"""Clients of Jupyter Servers, as they are, at sessions of a served controller."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx2
import pytest

from ..support.environments import python_with
from ..support.served import Served
from ..support.wsclient import BINARY, TEXT, WsClient, frame

pytestmark = pytest.mark.anyio

CLIENT = Path(__file__).parent / "clients/jupyter_calls.py"
WAIT_S = 60
SLOW = "import time; print('on', flush=True); time.sleep(60)"


def kernel_client(served: Served, session_id: str, *codes: str) -> list[dict[str, Any]]:
    """What ``jupyter_kernel_client`` gets for each code, run in the session's first kernel."""
    base = f"{served.base}/jupyter/{session_id}"
    done = subprocess.run(
        [python_with("jupyterclients"), "-I", CLIENT, base, served.token, "k-default", *codes],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


class Socket:
    """A WebSocket of a client below a session, in either form."""

    def __init__(self, client: WsClient) -> None:
        self.client = client

    async def say(self, kind: str, msg_id: str, channel: str = "shell", **content: Any) -> None:
        message = {
            "channel": channel,
            "header": {
                "msg_id": msg_id,
                "msg_type": kind,
                "session": "a",
                "username": "",
                "version": "5.3",
            },
            "parent_header": {},
            "metadata": {},
            "content": content,
        }
        self.client.say(frame(TEXT, json.dumps(message).encode()))

    async def hear(self, kind: str, msg_id: str = "", **content: Any) -> dict[str, Any]:
        """Hear on until such a message comes."""
        with anyio.fail_after(WAIT_S):
            while True:
                opcode, data = await self.client.heard(WAIT_S)
                assert opcode in (TEXT, BINARY), (opcode, data)
                message = json.loads(data)
                parent = message["parent_header"].get("msg_id")
                if message["header"]["msg_type"] == kind and msg_id in ("", parent):
                    said = message["content"]
                    if all(said.get(key) == value for key, value in content.items()):
                        return message


@asynccontextmanager
async def socket(served: Served, path: str) -> AsyncIterator[Socket]:
    address = urlsplit(served.base)
    client = await WsClient.to(address.port, f"{path}?token={served.token}&session_id=a")
    assert client.answer.status == 101, client.answer
    try:
        yield Socket(client)
    finally:
        client.close()


async def opened(client: Any, **arguments: Any) -> str:
    """A session in which the agent has set a variable."""
    info = await client.call_tool("open_session", {"policy": "offline", **arguments})
    session_id: str = info.structured_content["session_id"]
    await execute(client, session_id, "answer = 41")
    return session_id


async def execute(client: Any, session_id: str, code: str) -> dict[str, Any]:
    done = await client.call_tool("execute_code", {"session_id": session_id, "code": code})
    return done.structured_content


async def test_a_kernel_client_sees_the_agents_variable_and_the_agent_the_clients(
    connect: Any, clean: Served
) -> None:
    async with connect() as agent:
        session_id = await opened(agent)
        seen, _, shown, failed = await anyio.to_thread.run_sync(
            kernel_client,
            clean,
            session_id,
            "print(answer + 1)",
            "theirs = 'of the client'",
            "from IPython.display import HTML; HTML('<b>7</b>')",
            "1 / 0",
        )
        assert seen["outputs"][0]["text"] == "42\n"
        assert shown["outputs"][0]["data"]["text/html"] == "<b>7</b>"
        assert (failed["status"], failed["outputs"][0]["ename"]) == ("error", "ZeroDivisionError")
        assert "of the client" in (await execute(agent, session_id, "theirs"))["text"]
        listed = await agent.call_tool("list_executions", {"session_id": session_id})
        codes = [each["code"] for each in listed.structured_content["executions"]]
        assert "print(answer + 1)" in codes, "what a client runs is listed as what an agent runs"


async def test_two_clients_and_the_agent_share_a_kernel(connect: Any, clean: Served) -> None:
    async with connect() as agent:
        session_id = await opened(agent)
        path = f"/jupyter/{session_id}/api/kernels/k-default/channels"
        async with socket(clean, path) as one, socket(clean, path) as two:
            await one.say("execute_request", "m1", code="print('of one', answer)")
            await one.hear("execute_reply", "m1", status="ok")
            await two.hear("execute_input", "m1")
            await two.hear("stream", "m1", text="of one 41\n")
            done = await execute(agent, session_id, "print('of the agent')")
            for each in (one, two):
                heard = await each.hear("stream", text="of the agent\n")
                assert heard["parent_header"]["msg_id"] == done["execution_id"]


async def test_interrupt_restart_and_death_are_told(connect: Any, clean: Served) -> None:
    async with connect() as agent, clean.http() as http:
        session_id = await opened(agent)
        kernel = f"/jupyter/{session_id}/api/kernels/k-default"
        async with socket(clean, f"{kernel}/channels") as one:
            await one.say("execute_request", "m1", code=SLOW)
            await one.hear("stream", "m1")  # from here on an interrupt is heard
            assert (await http.get(kernel)).json()["execution_state"] == "busy"
            assert (await http.post(f"{kernel}/interrupt")).status_code == 204
            reply = await one.hear("execute_reply", "m1")
            assert reply["content"]["ename"] == "KeyboardInterrupt"
            restarted = await http.post(f"{kernel}/restart")
            assert (restarted.status_code, restarted.json()["id"]) == (200, "k-default")
            await one.hear("status", execution_state="restarting")
            await one.say("execute_request", "m2", code="answer")
            assert (await one.hear("execute_reply", "m2"))["content"]["ename"] == "NameError"
            await one.say("execute_request", "m3", code="import os; os._exit(3)")
            await one.hear("status", execution_state="dead")
            await one.hear("execute_reply", "m3", status="error")
            assert (await http.get(kernel)).json()["execution_state"] == "dead"


async def test_a_terminal_opened_here_is_the_agents_too(connect: Any, clean: Served) -> None:
    async with connect() as agent, clean.http() as http:
        session_id = await opened(agent)
        base = f"/jupyter/{session_id}"
        name = (await http.post(f"{base}/api/terminals", json={})).json()["name"]
        listed = await agent.call_tool("list_terminals", {"session_id": session_id})
        ids = [each["terminal_id"] for each in listed.structured_content["terminals"]]
        assert ids == [name]
        async with socket(clean, f"{base}/terminals/websocket/{name}") as one:
            for message in (["set_size", 30, 100, 1, 1], ["stdin", "stty size; echo a$((1+1))b\r"]):
                one.client.say(frame(TEXT, json.dumps(message).encode()))
            seen = ""
            with anyio.fail_after(WAIT_S):
                while "a2b" not in seen or "30 100" not in seen:
                    kind, text = json.loads((await one.client.heard(WAIT_S))[1])
                    seen += text if kind == "stdout" else ""
            one.client.say(frame(TEXT, json.dumps(["stdin", "exit\r"]).encode()))
            with anyio.fail_after(WAIT_S):
                while json.loads((await one.client.heard(WAIT_S))[1])[0] != "disconnect":
                    pass
        assert (await http.delete(f"{base}/api/terminals/{name}")).status_code == 204
        assert (await http.get(f"{base}/api/terminals")).json() == []


async def test_files_go_round(connect: Any, clean: Served) -> None:
    async with connect() as agent, clean.http() as http:
        session_id = await opened(agent)
        contents = f"/jupyter/{session_id}/api/contents"
        data = bytes(range(256))
        model = {"type": "file", "format": "base64", "content": base64.b64encode(data).decode()}
        assert (await http.put(f"{contents}/a/b.bin", json=model)).status_code == 201
        got = (await http.get(f"{contents}/a/b.bin")).json()
        assert (got["format"], base64.b64decode(got["content"])) == ("base64", data)
        await execute(agent, session_id, "open('/workspace/a/c.txt', 'w').write('é')")
        assert (await http.get(f"{contents}/a/c.txt")).json()["content"] == "é"
        folder = (await http.get(f"{contents}/a")).json()
        assert [each["path"] for each in folder["content"]] == ["a/b.bin", "a/c.txt"]
        moved = await http.patch(f"{contents}/a/c.txt", json={"path": "d.txt"})
        assert (moved.status_code, moved.json()["path"]) == (200, "d.txt")
        down = await http.get(f"/jupyter/{session_id}/files/d.txt")
        assert (down.content, down.headers["x-content-type-options"]) == ("é".encode(), "nosniff")
        for chunk, text in ((1, "one "), (2, "two "), (-1, "three")):
            part = {"type": "file", "format": "text", "content": text, "chunk": chunk}
            await http.put(f"{contents}/e.txt", json=part)
        assert (await http.get(f"{contents}/e.txt")).json()["content"] == "one two three"
        assert (await http.delete(f"{contents}/a")).status_code == 204
        assert (await http.get(f"{contents}/a")).status_code == 404


async def test_a_notebook_that_the_agent_has_open_is_merged_not_overwritten(
    connect: Any, clean: Served
) -> None:
    async with connect() as agent, clean.http() as http:
        session_id = await opened(agent)
        base = f"/jupyter/{session_id}"
        made = (await http.post(f"{base}/api/contents", json={"type": "notebook"})).json()
        path = made["path"]
        assert path == "Untitled.ipynb"
        await agent.call_tool(
            "use_notebook", {"session_id": session_id, "notebook_name": "n", "notebook_path": path}
        )
        before = (await http.get(f"{base}/api/contents/{path}")).json()
        await agent.call_tool(
            "insert_cell",
            {
                "session_id": session_id,
                "cell_index": 0,
                "cell_type": "markdown",
                "cell_source": "of the agent",
            },
        )
        cell = {"cell_type": "markdown", "id": "mine", "metadata": {}, "source": "of the client"}
        content = {**before["content"], "cells": [*before["content"]["cells"], cell]}
        model = {"type": "notebook", "format": "json", "content": content}
        saved = await http.put(f"{base}/api/contents/{path}", json=model)
        assert saved.status_code == 200, saved.text
        now = (await http.get(f"{base}/api/contents/{path}")).json()["content"]["cells"]
        assert {"of the agent", "of the client"} <= {"".join(each["source"]) for each in now}
        sessions = (await http.get(f"{base}/api/sessions")).json()
        assert [each["path"] for each in sessions] in ([path], [])
        asked = {"path": path, "type": "notebook", "kernel": {"name": "python3"}}
        session = (await http.post(f"{base}/api/sessions", json=asked)).json()
        assert session["kernel"]["id"] in {
            each["id"] for each in (await http.get(f"{base}/api/kernels")).json()
        }


async def test_what_a_jupyter_server_says_of_itself(connect: Any, clean: Served) -> None:
    async with connect() as agent, clean.http() as http:
        base = f"/jupyter/{await opened(agent)}"
        assert (await http.get(f"{base}/api")).json()["version"].startswith("2.")
        assert (await http.get(f"{base}/api/me")).json()["identity"]["name"] == "local"
        specs = (await http.get(f"{base}/api/kernelspecs")).json()
        assert specs["default"] == "python3"
        assert specs["kernelspecs"]["python3"]["spec"]["language"] == "python"
        assert (await http.get(f"{base}/kernelspecs/python3/logo-svg.svg")).status_code == 404
        started = await http.post(f"{base}/api/kernels", json={"name": "python3"})
        assert started.status_code == 201
        assert started.headers["location"].endswith(started.json()["id"])
        assert (await http.delete(f"{base}/api/kernels/{started.json()['id']}")).status_code == 204
        assert "token=" not in clean.log.read_text()
        without = httpx2.get(f"{clean.base}{base}/api", timeout=30)
        assert without.status_code == 401
