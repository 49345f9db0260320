"""A command of a program's own: what it writes as it comes; it ends with the channel."""

from __future__ import annotations

from typing import Annotated

import anyio
from pydantic import Field

from sandbox.commands.command import Command
from sandbox.commands.models import MAX_STDIN_BYTES, CommandRequest
from sandbox.commands.report import report
from sandbox.errorgroups import one_error
from sandbox.errors import InvalidRequest
from sandbox.server.channels.channel import TAGS, Channel, opening
from sandbox.sessions.session import Session
from sandbox.values import Frozen


class CommandStart(Frozen, strict=True):
    """What is to be run."""

    argv: list[Annotated[str, Field(max_length=65_536)]] = Field(max_length=4096)
    """A program and its arguments, which no shell reads."""
    cwd: str = Field("", max_length=4096)
    env: dict[str, str] = Field(default_factory=dict[str, str])
    timeout_s: float = Field(0, ge=0, allow_inf_nan=False)
    """0: as long as the policy lets it run."""
    stdin: bool = False
    """Whether bytes for its standard input follow, and an object ``{}`` after them."""


async def serve_command(session: Session, channel: Channel) -> None:
    """Run a command to its end; an object stops it with all that it started, as does going away.

    The last message is ``{"result": …}``, a command's result without its output.
    """
    asked = await opening(channel, CommandStart)
    if asked is None:
        return
    stdin = await _stdin(channel) if asked.stdin else b""
    if stdin is None:
        return
    request = CommandRequest(
        tuple(asked.argv), asked.cwd, stdin, asked.env, asked.timeout_s or None
    )
    async with session.use():
        started = session.commands.start(request)
        try:
            async with one_error() as tasks:
                tasks.start_soon(_stop_when_told, session, started, channel)
                await _tell(started, channel)
                tasks.cancel_scope.cancel()
        finally:
            if not started.is_over:
                with anyio.CancelScope(shield=True):
                    await session.commands.stop(started)


async def _stdin(channel: Channel) -> bytes | None:
    """All that the command can read; None when the other end has gone."""
    given = bytearray()
    while isinstance(message := await channel.receive(), bytes):
        given += message
        if len(given) > MAX_STDIN_BYTES:
            raise InvalidRequest(
                f"A command's standard input has at most {MAX_STDIN_BYTES:,} bytes.",
                remedy="Copy it into a file of the session, and let the command read that.",
            )
    return None if message is None else bytes(given)


async def _tell(started: Command, channel: Channel) -> None:
    async for read in started.follow():
        if read.missed:
            await channel.send({"missed_bytes": read.missed})
        for piece in read.entries:
            await channel.send(TAGS[piece.name] + piece.data)
    await started.wait()  # raises why it could not be started
    await channel.send({"result": report(started, 0).model_dump(mode="json")})


async def _stop_when_told(session: Session, started: Command, channel: Channel) -> None:
    while isinstance(await channel.receive(), bytes):
        pass
    await session.commands.stop(started)
