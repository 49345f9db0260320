"""Channels: what is said over one, what is not, and errors that reach the other end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from starlette.websockets import WebSocket

from sandbox import resources
from sandbox.cli.sessionaccess import heard
from sandbox.errors import Conflict, FileError, InvalidRequest, NotPermitted, ProtocolError
from sandbox.policy import load
from sandbox.server.channels.attachedcommand import CommandStart
from sandbox.server.channels.attachedkernel import ConsoleRequest, serve_kernel
from sandbox.server.channels.attachedterminal import TerminalRequest, serve_terminal
from sandbox.server.channels.channel import Channel, memory_channel, parsed, within_process
from sandbox.server.channels.routes import CHANNELS, channel_routes
from sandbox.server.grants import LOCAL_GRANT
from sandbox.server.scopes import TOOL_SCOPES, WEBSOCKET_SCOPES
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.session import Session

pytestmark = pytest.mark.anyio

SESSION = cast(Session, None)


async def test_messages_go_both_ways_until_one_end_has_gone() -> None:
    here, there = memory_channel()
    await here.send(b"typed")
    await there.send({"shown": 1})
    assert (await there.receive(), await here.receive()) == (b"typed", {"shown": 1})
    here.close()
    assert await there.receive() is None
    await there.send(b"nobody hears it")
    there.close()


async def test_an_error_of_what_serves_a_channel_is_raised_at_the_other_end() -> None:
    async def refuse(session: Session, channel: Channel) -> None:
        await channel.send(b"first")
        raise FileError("not_found", "It is not there.", remedy="Look elsewhere.")

    async with within_process(refuse, SESSION) as channel:
        assert await heard(channel) == b"first"
        with pytest.raises(FileError) as caught:
            await heard(channel)
        assert (caught.value.reason, caught.value.remedy) == ("not_found", "Look elsewhere.")
        with pytest.raises(ProtocolError):
            await heard(channel)


async def test_what_serves_a_channel_notices_that_the_program_has_gone() -> None:
    gone = anyio.Event()

    async def listen(session: Session, channel: Channel) -> None:
        while await channel.receive() is not None:
            pass
        gone.set()

    with anyio.fail_after(5):
        async with within_process(listen, SESSION) as channel:
            await channel.send(b"x")
        await gone.wait()


async def test_an_error_of_the_program_ends_the_channel_and_is_its_own() -> None:
    async def wait(session: Session, channel: Channel) -> None:
        await channel.receive()

    with pytest.raises(Conflict):
        async with within_process(wait, SESSION):
            raise Conflict("The program gives up.")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (TerminalRequest, b"bytes"),
        (TerminalRequest, {"rows": 0}),
        (TerminalRequest, {"cols": 10**6}),
        (TerminalRequest, {"rows": "24"}),
        (TerminalRequest, {"other": 1}),
        (CommandStart, {}),
        (CommandStart, {"argv": "ls"}),
        (CommandStart, {"argv": ["x"] * 5000}),
        (CommandStart, {"argv": ["x"], "timeout_s": -1}),
        (CommandStart, {"argv": ["x"], "timeout_s": float("nan")}),
        (ConsoleRequest, {"execute": 1}),
        (ConsoleRequest, {"interrupt": "yes"}),
    ],
)
def test_a_message_that_makes_no_sense_is_refused(model: Any, message: Any) -> None:
    with pytest.raises(InvalidRequest):
        parsed(message, model)


def test_each_channel_has_the_scope_of_the_tools_that_do_the_same() -> None:
    scopes = {path: {TOOL_SCOPES[tool] for tool in tools} for path, (tools, _) in CHANNELS.items()}
    ours = {path: {s} for path, s in WEBSOCKET_SCOPES.items() if path.startswith("/sessions/")}
    assert scopes == ours


ASKED = """\
version: 1
extends: offline
approve:
  tools: [write_terminal]
"""
BARE = """\
version: 1
extends: offline
tools: [execute_code, open_terminal, read_terminal]
"""


@pytest.mark.parametrize("text", [ASKED, BARE])
async def test_a_terminal_is_refused_where_typing_is_not_allowed_or_not_unasked(
    manager: SessionManager, tmp_path: Path, text: str
) -> None:
    session = await opened(manager, tmp_path, text)
    (route,) = (each for each in channel_routes(manager) if each.path.endswith("/terminal"))
    scope = {
        "type": "websocket",
        "headers": [],
        "sandbox.grant": LOCAL_GRANT,
        "path_params": {"session_id": session.session_id},
    }

    async def nothing(*_: Any) -> Any:
        raise AssertionError("the connection was accepted")

    with pytest.raises(NotPermitted, match="write_terminal"):
        await route.serve(WebSocket(scope, nothing, nothing))


async def test_a_kernel_is_asked_only_for_what_the_policy_allows(
    manager: SessionManager, tmp_path: Path
) -> None:
    session = await opened(manager, tmp_path, BARE)
    (serve,) = (serve for path, (_, serve) in CHANNELS.items() if path.endswith("/kernel"))
    async with within_process(serve, session) as channel:
        await channel.send({"kernel": "python3"})
        with pytest.raises(NotPermitted, match="start_kernel"):
            await heard(channel)
    async with within_process(serve, session) as channel:
        await channel.send({})
        await channel.send({"complete": "pri"})
        refused = await heard(channel)
        assert isinstance(refused, dict)
        assert "complete_code" in refused["refused"]
        await channel.send({"execute": "print(7)"})
        assert await ending(channel) == "ok"
    async with within_process(serve_kernel, session) as channel:
        await channel.send({"kernel": "python3"})
        await channel.send({"execute": "print(7)"})
        assert await ending(channel) == "ok"


async def test_what_a_channel_opened_may_be_closed_by_somebody_else(
    manager: SessionManager,
) -> None:
    session = await manager.get(LOCAL_GRANT.caller())
    with anyio.fail_after(10):
        async with within_process(serve_terminal, session) as channel:
            await channel.send({})
            told = await heard(channel)
            assert isinstance(told, dict)
            await session.terminals.close(told["terminal_id"])
            while isinstance(told := await heard(channel), bytes):
                pass
            assert told == {"exit_code": None}
        before = {each.kernel_id for each in session.kernels.infos}
        here, there = memory_channel()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve_kernel, session, there)
            await here.send({"kernel": "python3"})
            await here.send({"execute": "print(7)"})
            assert await ending(here) == "ok"
            (own,) = {each.kernel_id for each in session.kernels.infos} - before
            await session.kernels.stop(own)
            here.close()
        there.close()


async def opened(manager: SessionManager, folder: Path, text: str) -> Session:
    (folder / "policies" / "own.yaml").write_text(text)
    manager.ownership.policies = load(resources.policies(), folder / "policies")
    return await manager.open(LOCAL_GRANT.caller(), policy="own")


async def ending(channel: Channel) -> str:
    """How the execution that runs ends."""
    while True:
        message = await heard(channel)
        if isinstance(message, dict) and "result" in message:
            return message["result"]["status"]
