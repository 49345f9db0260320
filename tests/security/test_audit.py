"""Attacks on the record: to forge it, to fill it, to stay out of it, to read it.

Through the real front, so that every text takes the way that a stranger's text takes.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.shared.exceptions import MCPError

from sandbox.audit import verify
from sandbox.audit.chain import MAX_LINE_BYTES, Line, read_line, write_line
from sandbox.audit.logfiles import lines, segments
from sandbox.sessions.manager import SessionManager

from .conftest import Attacked
from .test_controller import TOKEN, Front
from .test_controller import front as front

pytestmark = pytest.mark.anyio

INJECTIONS = [
    'x\n{"seq":1,"kind":"call","outcome":"ok"}',
    "x\r\n\r\nx",
    "\x1b[2J\x1b]0;owned\x07",
    '","outcome":"ok","hash":"' + "0" * 64 + '"}\n',
    "\u202e\u2028\u0085\x9b",
    "x" * 100_000,
    "\U0001f4a9" * 50_000,
]


class Record:
    """The log that grows while an attack runs.

    Args:
        manager: Whose it is.
    """

    def __init__(self, manager: SessionManager) -> None:
        self.folder: Path = manager.audit.folder
        self._before = len(self._all())

    def _all(self) -> list[bytes]:
        return [data for path in segments(self.folder) for data in lines(path)]

    def new(self, kind: str = "") -> list[Line]:
        """The lines that came since, all of them right and safe to print."""
        verdict = verify(self.folder, "run-1")
        assert verdict.is_intact, verdict.fault
        added = self._all()[self._before :]
        assert all(len(data) <= MAX_LINE_BYTES for data in added)
        assert all(data[:-1].isascii() and data[:-1].decode().isprintable() for data in added)
        return [line for line in map(read_line, added) if kind in ("", line.kind)]

    def text(self) -> bytes:
        """All that came since."""
        return b"".join(self._all()[self._before :])


@pytest.fixture
def record(manager: SessionManager) -> Record:
    return Record(manager)


@pytest.mark.parametrize("text", INJECTIONS, ids=range(len(INJECTIONS)))
async def test_no_text_of_a_caller_can_forge_a_line(
    front: Front, record: Record, text: str
) -> None:
    """Invariant 11: names, ids, arguments and tools of a caller stay within their field."""
    calls: list[tuple[str, dict[str, Any]]] = [
        ("execute_code", {"code": text, "session_id": text}),
        ("open_session", {"name": text, "policy": text}),
        ("execute_code", {text: text}),
        ("read_file", {"path": text, "session_id": text}),
    ]
    async with front.mcp() as client:
        with pytest.raises(MCPError, match="Unknown tool"):
            await client.call_tool(text[:1000], {})  # the client sends it in a header too
        for tool, arguments in calls:
            assert (await client.call_tool(tool, arguments)).is_error
    told = record.new("call")
    assert len(told) == len(record.new()) == 1 + len(calls)
    assert {line.values["outcome"] for line in told} == {"refused"}
    assert told[0].values["tool"][:200] == text[:200]


async def test_no_path_or_body_of_a_request_can_forge_a_line(front: Front, record: Record) -> None:
    """Invariant 11: whatever the router decodes is escaped again."""
    async with front.authorized() as http:
        for path in ("sessions/%0A%7B%22seq%22%3A1%7D", "%1B%5B2J%0D%0Ax", "sessions/x/files/%0A"):
            assert (await http.get(f"/mcp/v1/{path}")).status_code == 404
        body = b'{"name": "a\\nb\\u001b[2J"}'
        assert (await http.post("/mcp/v1/sessions", content=body)).status_code == 400
    assert [line.values["outcome"] for line in record.new()] == ["refused"] * 4
    assert record.new()[0].values["session_id"] == '\n{"seq":1}'


async def test_what_runs_in_a_sandbox_writes_nothing_into_the_log(
    victim: Attacked, front: Front, record: Record
) -> None:
    """Invariant 11: outputs, errors and forged lines with a right hash stay where they are."""
    head = victim.manager.audit.head
    line = write_line(head, 0.0, "run-1", "call", {"principal": "forged", "outcome": "ok"})
    text = line.decode()
    cell = await victim.cell(f"print({text!r}); raise type('forged', (Exception,), {{}})({text!r})")
    assert cell.status == "error"
    await victim.shell(f"cat; echo {'forged' * 10} >&2; exit 7", stdin=text)
    assert b"forged" not in record.text()
    record.new()


async def test_the_log_is_out_of_reach_of_callers_and_their_code(
    victim: Attacked, front: Front, record: Record
) -> None:
    """Invariant 11: no path of a caller, inside or over REST, leads to the controller's files."""
    places = [record.folder / "head", *segments(record.folder)]
    before = [hashlib.sha256(path.read_bytes()).hexdigest() for path in places]
    for path in places:
        probe = f"cat '{path}'; echo x > '{path}'; rm -rf '{path.parent}'; find / -name '*.jsonl'"
        result = await victim.shell(f"{probe} 2>&1")
        assert '"prev":"' not in result.stdout
        assert path.name not in result.stdout.replace(str(path), "")
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in places] == before
    async with front.authorized() as http:
        for path in places:
            for url in (f"/mcp/v1/..{path}", f"/mcp/v1/sessions/x/files/{path}", f"/mcp/v1{path}"):
                assert (await http.get(url)).status_code == 404
    assert {line.values["outcome"] for line in record.new()} == {"refused"}


async def test_the_log_holds_no_secret_of_a_caller(front: Front, record: Record) -> None:
    """Invariant 11: of arguments, contents and tokens there is a digest at most."""
    secret = "correct-battery-of-a-caller"
    async with front.mcp() as client:
        await client.call_tool("execute_code", {"code": f"x = {secret!r}; print(x)"})
        await client.call_tool("write_file", {"path": "f", "content": secret})
        await client.call_tool("run_command", {"command": f"echo {secret}", "stdin": secret})
        await client.call_tool("execute_code", {"code": "1", "nonsense": secret})
        await client.call_tool("close_session", {})
    async with front.authorized() as http:
        await http.post("/mcp/v1/sessions", json={"nonsense": secret})
    assert len(record.new("call")) == 6
    for text in (secret, TOKEN):
        assert text.encode() not in record.text()


async def test_strangers_cannot_fill_the_log(front: Front, record: Record) -> None:
    """Invariant 11: a flood without a token costs a line a minute, whatever it asks for."""
    async with front.http(authorization="Bearer " + "x" * 1000) as http:
        for number in range(400):
            answer = await http.get(f"/mcp/v1/{'y' * 1000}{number}", headers={"X": "z" * 1000})
            assert answer.status_code == 401
    assert len(record.new()) <= 2
    assert len(record.text()) < 2000


async def test_a_caller_that_breaks_off_is_on_record_all_the_same(
    front: Front, record: Record
) -> None:
    """Invariant 11: nobody stays out of the log by not waiting for the answer."""
    async with front.mcp() as client:
        opened = await client.call_tool("open_session", {"reuse": False})
        assert opened.structured_content is not None
        session_id = opened.structured_content["session_id"]
        with anyio.move_on_after(1):
            code = {"code": "while True: pass", "session_id": session_id}
            await client.call_tool("execute_code", code)
        _, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(
            f"PUT /mcp/v1/sessions/{session_id}/files/f HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {TOKEN}\r\nContent-Length: 1000000\r\n\r\nhalf".encode()
        )
        await writer.drain()
        await anyio.sleep(0.5)
        writer.close()
        with anyio.fail_after(20):
            while len(record.new("call")) < 3:
                await anyio.sleep(0.1)
        await client.call_tool("close_session", {"session_id": session_id})
    told = {line.values["tool"]: line.values["outcome"] for line in record.new("call")}
    assert told["execute_code"] == "cancelled"
    assert told["PUT /sessions/{session_id}/files/{path:path}"] == "failed"
