"""REST against a real engine: files of any size, and what happens when a transfer breaks off."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from ..support.served import RUNTIME

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


async def opened(http: Any, **wanted: object) -> str:
    answer = await http.post("/mcp/v1/sessions", json=wanted)
    assert answer.status_code == 201, answer.text
    return answer.json()["session_id"]


async def test_a_large_file_goes_both_ways_unchanged_with_little_memory(clean: Any) -> None:
    block, blocks = os.urandom(MIB), 200
    sent, received = hashlib.sha256(), hashlib.sha256()

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(blocks):
            piece = number.to_bytes(8) + block[8:]
            sent.update(piece)
            yield piece

    async with clean.http() as http:
        session_id = await opened(http)
        url = f"/mcp/v1/sessions/{session_id}/files/deep/er/big.bin"
        put = await http.put(url, content=pieces())
        assert put.json()["size"] == blocks * MIB
        async with http.stream("GET", url) as answer:
            async for piece in answer.aiter_bytes():
                received.update(piece)
    assert sent.digest() == received.digest()


async def test_ranges_resume_a_download(clean: Any) -> None:
    data = os.urandom(3 * MIB)
    async with clean.http() as http:
        url = f"/mcp/v1/sessions/{await opened(http)}/files/f"
        await http.put(url, content=data)
        first = await http.get(url, headers={"Range": f"bytes=0-{MIB - 1}"})
        rest = await http.get(url, headers={"Range": f"bytes={MIB}-"})
    assert (first.status_code, rest.status_code) == (206, 206)
    assert first.content + rest.content == data


async def test_an_upload_that_breaks_off_leaves_what_was_there(clean: Any) -> None:
    async with clean.http() as http:
        session_id = await opened(http)
        path = f"/mcp/v1/sessions/{session_id}/files/f"
        await http.put(path, content=b"before")
        host, _, port = clean.base.removeprefix("http://").partition(":")
        head = (
            f"PUT {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 9999999\r\n"
            f"Authorization: Bearer {clean.token}\r\n\r\n"
        )
        look = {"command": "find . -maxdepth 1 -type f | wc -l; cat f", "session_id": session_id}

        async def wait_for(files: int) -> None:
            with anyio.fail_after(60):
                while True:
                    seen = await client.call_tool("run_command", look)
                    if seen.structured_content["stdout"].strip() == f"{files}\nbefore":
                        return
                    await anyio.sleep(0.1)

        async with clean.client() as client:
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(head.encode() + bytes(300_000))
                await wait_for(2)  # what is being written stands beside what was there
            await wait_for(1)


async def test_a_full_disk_is_said_and_leaves_no_file_and_a_working_session(clean: Any) -> None:
    async with clean.http() as http, clean.client() as client:
        session_id = await opened(http)
        fill = {"command": "head -c 400M /dev/zero > filler", "session_id": session_id}
        assert (await client.call_tool("run_command", fill)).structured_content["exit_code"] == 0
        url = f"/mcp/v1/sessions/{session_id}/files/huge"
        full = await http.put(url, content=bytes(200 * MIB))
        assert (full.status_code, full.json()["code"]) == (507, "file_error.no_space")
        assert (await http.get(url)).status_code == 404
        assert (await http.put(url, content=b"fits")).status_code == 201


@pytest.mark.parametrize(
    ("make", "status"),
    [
        ("mkfifo odd", 400),
        ("mkdir odd", 400),
        ("ln -s /etc/shadow odd", 403),
        ("ln -s odd odd", 400),
        ("ln -s /dev/zero odd", 400),
        ("ln -s /proc/kmsg odd", 404 if RUNTIME == "runsc" else 400),  # gVisor has none
        ("touch odd && chmod 000 odd", 403),
    ],
)
async def test_odd_files_get_an_error_at_once(clean: Any, make: str, status: int) -> None:
    async with clean.http() as http, clean.client() as client:
        session_id = await opened(http)
        arguments = {"command": make, "session_id": session_id}
        done = await client.call_tool("run_command", arguments)
        assert done.structured_content["exit_code"] == 0
        with anyio.fail_after(10):
            answer = await http.get(f"/mcp/v1/sessions/{session_id}/files/odd")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_writing_outside_what_is_writable_is_refused(clean: Any) -> None:
    async with clean.http() as http:
        session_id = await opened(http)
        files = f"/mcp/v1/sessions/{session_id}/files"
        for path in ("%2Fetc%2Fpasswd", "..%2F..%2Fetc%2Fx", "%2Fproc%2Fsys%2Fkernel%2Fx"):
            answer = await http.put(f"{files}/{path}", content=b"x")
            assert answer.status_code in (400, 403, 404), path
        long = await http.put(f"{files}/{'x' * 300}", content=b"x")
        assert long.status_code == 400


async def test_a_session_of_nobody_looks_like_one_that_never_was(clean: Any) -> None:
    async with clean.http() as http:
        session_id = await opened(http)
        await http.delete(f"/mcp/v1/sessions/{session_id}")
        absent = await http.get("/mcp/v1/sessions/s-absent")
        assert absent.status_code == 404
        assert (await http.get("/mcp/v1/sessions")).json() == {"sessions": []}


async def test_files_are_listed_with_what_the_workspace_may_hold(clean: Any) -> None:
    async with clean.http() as http:
        files = f"/mcp/v1/sessions/{await opened(http)}/files"
        made = await http.put(f"{files}/deep/empty/")
        assert (made.status_code, made.json()["type"]) == (201, "directory")
        await http.put(f"{files}/deep/a.png", content=b"1")
        await http.put(f"{files}/b.csv", content=b"12")
        query = {"path": "deep", "max_depth": 2, "pattern": "*.png"}
        found = (await http.get(files, params=query)).json()
        everything = (await http.get(files, params={"max_depth": 9, "limit": 2})).json()
        wrong = [
            await http.get(files, params=each)
            for each in ({"max_depth": "x"}, {"limit": 10**9}, {"start_index": -1}, {"other": "1"})
        ]
        absent = await http.get(files, params={"path": "absent"})
    assert [(each["name"], each["size"]) for each in found["entries"]] == [("a.png", 1)]
    assert found["workspace_bytes"] == 512 * MIB
    assert found["workspace_inodes"] > 1000
    assert len(everything["entries"]) == 2
    assert everything["total"] > 2
    assert {each.status_code for each in wrong} == {400}
    assert (absent.status_code, absent.json()["code"]) == (404, "file_error.not_found")
