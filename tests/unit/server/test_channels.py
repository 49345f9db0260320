"""Channels: what is said over one, what is not, and errors that reach the other end."""

from __future__ import annotations

from typing import Any, cast

import anyio
import pytest

from sandbox.cli.sessionaccess import heard
from sandbox.errors import Conflict, FileError, InvalidRequest, ProtocolError
from sandbox.server.channels.attachedcommand import CommandStart
from sandbox.server.channels.attachedkernel import ConsoleRequest
from sandbox.server.channels.attachedterminal import TerminalRequest
from sandbox.server.channels.channel import Channel, memory_channel, parsed, within_process
from sandbox.server.channels.routes import CHANNELS
from sandbox.server.scopes import TOOL_SCOPES, WEBSOCKET_SCOPES
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


def test_each_channel_has_the_scope_of_the_tool_that_is_the_same() -> None:
    scopes = {path: TOOL_SCOPES[tool] for path, (tool, _) in CHANNELS.items()}
    assert scopes == WEBSOCKET_SCOPES
