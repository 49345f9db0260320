"""Taking requests in: how many, how much, how slowly."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from sandbox.server import intake
from sandbox.server.auth import GUARDED
from sandbox.server.grants import LOCAL_GRANT, Grant
from sandbox.server.intake import Intake
from sandbox.server.scopes import SCOPES

pytestmark = pytest.mark.anyio

OTHER = Grant("other", "test", "t2", frozenset(SCOPES))


class Parked:
    """An application whose requests take until they may go on."""

    def __init__(self) -> None:
        self.go = anyio.Event()
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        self.bodies.append(message.get("body", b""))
        await self.go.wait()
        await PlainTextResponse("served")(scope, receive, send)


async def ask(
    app: Any,
    body: bytes = b"{}",
    *,
    grant: Grant = LOCAL_GRANT,
    pieces: int = 1,
    pause_s: float = 0,
) -> int:
    """Send a message for MCP, and return the status of the answer; 0 when there was none."""
    size = -(-len(body) // pieces)
    left = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    status = 0

    async def receive() -> Message:
        if not left:
            return {"type": "http.disconnect"}
        await anyio.sleep(pause_s)
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {"type": "http", "method": "POST", "path": GUARDED, "headers": []}
    await app({**scope, "sandbox.grant": grant}, receive, send)
    return status


async def served_beside(app: Intake, parked: Parked, waiting: list[bytes], *more: Any) -> list[int]:
    """The answers to ``more`` while as many messages as ``waiting`` are under way."""
    answers: list[int] = []
    async with anyio.create_task_group() as tasks:
        for body in waiting:
            tasks.start_soon(ask, app, body)
        await anyio.wait_all_tasks_blocked()
        for body, grant in more:
            if grant is OTHER:
                parked.go.set()
            answers.append(await ask(app, body, grant=grant))
        parked.go.set()
    return answers


async def test_one_principal_has_so_many_requests_under_way_and_another_is_served() -> None:
    parked = Parked()
    app = Intake(parked, 3)
    answers = await served_beside(app, parked, [b"{}"] * 3, (b"{}", LOCAL_GRANT), (b"{}", OTHER))
    assert answers == [429, 200]
    assert await ask(app) == 200


async def test_messages_under_way_are_bounded_in_bytes_of_one_and_of_all() -> None:
    parked = Parked()
    app = Intake(parked, 100)
    large = json.dumps("x" * (intake.MAX_MCP_BODY - 2)).encode()
    answers = await served_beside(app, parked, [large] * 4, (b"[1]", LOCAL_GRANT), (large, OTHER))
    assert answers == [429, 200]
    assert await ask(app, large) == 200


async def test_a_message_that_is_too_long_is_refused_when_it_becomes_so() -> None:
    parked = Parked()
    assert await ask(Intake(parked, 9), b" " * (intake.MAX_MCP_BODY + 1), pieces=100) == 413
    assert not parked.bodies


@pytest.mark.parametrize(
    "body",
    [
        json.dumps([[]] * 1_000_000).encode(),
        json.dumps({str(number): 1 for number in range(200_000)}).encode(),
        b"[" * 1_000_000,
        b'"' + b'\\"' * 1_000_000 + b",[" * 1_000_000,
        b'"\\' * 1_000_000,
        b',"' * 1_000_000,
    ],
)
async def test_a_message_of_a_great_many_values_is_refused_before_it_is_parsed(
    body: bytes,
) -> None:
    parked = Parked()
    parked.go.set()
    with anyio.fail_after(5):
        status = await ask(Intake(parked, 9), body)
    assert status == 413 or len(parked.bodies[0]) == len(body)
    if body.startswith((b"[", b"{")):
        assert status == 413


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le"])
async def test_a_message_in_another_encoding_hides_nothing(encoding: str) -> None:
    parked = Parked()
    parked.go.set()
    assert await ask(Intake(parked, 9), '["\\"", []]'.encode(encoding)) == 400


async def test_code_with_a_great_many_commas_and_brackets_is_one_value() -> None:
    parked = Parked()
    parked.go.set()
    code = json.dumps({"code": "[1, {2: '\"\\\\'}, 3]\n" * 50_000}).encode()
    assert await ask(Intake(parked, 9), code, pieces=7) == 200
    assert parked.bodies == [code]


async def test_a_message_that_does_not_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "BODY_S", 0.2)
    parked = Parked()
    with anyio.fail_after(5):
        assert await ask(Intake(parked, 9), b"x" * 100, pieces=100, pause_s=0.1) == 408
    assert not parked.bodies


async def test_a_body_that_stands_still_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "SILENCE_S", 0.1)
    seen: list[str] = []

    async def upload(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((await receive())["type"])

    async def silent() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    scope = {
        "type": "http",
        "method": "PUT",
        "path": f"{GUARDED}/sessions/s/files/x",
        "headers": [],
    }
    with anyio.fail_after(5):
        await Intake(upload, 9)({**scope, "sandbox.grant": LOCAL_GRANT}, silent, print)
    assert seen == ["http.disconnect"]


@pytest.mark.timed
@pytest.mark.parametrize("unit", [b'"a",', b'"\\', b'\\"', b"[", b'"', b"x", b'""'])
async def test_counting_values_takes_time_in_proportion(unit: bytes) -> None:
    """Each is looked at once, also where a text never ends."""
    parked = Parked()
    parked.go.set()
    with anyio.fail_after(2):
        await ask(Intake(parked, 9), b'"' + unit * (3 * 1024 * 1024 // len(unit)))
