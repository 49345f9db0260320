"""A terminal of a program's own: opened with the channel, closed with it."""

from __future__ import annotations

import codecs
from contextlib import suppress
from typing import Annotated

import anyio
from pydantic import Field

from sandbox.errorgroups import one_error
from sandbox.errors import Conflict, SandboxError
from sandbox.server.channels.channel import Channel, opening, parsed
from sandbox.sessions.session import Session
from sandbox.terminals.terminals import MAX_COLS, MAX_ROWS
from sandbox.values import Frozen

CLOSE_S = 5.0
MAX_TYPED_BYTES = 16 * 1024
"""Typed at once; the rest of a message follows."""

Rows = Annotated[int, Field(ge=1, le=MAX_ROWS)]
Columns = Annotated[int, Field(ge=1, le=MAX_COLS)]


class TerminalRequest(Frozen, strict=True):
    """Which terminal is wanted."""

    rows: Rows = 24
    cols: Columns = 80
    cwd: str = Field("", max_length=4096)


class Resize(Frozen, strict=True):
    """The window of the one who looks has another size now."""

    rows: Rows
    cols: Columns


async def serve_terminal(session: Session, channel: Channel) -> None:
    """Serve a terminal with a shell until that ends, or the other end goes.

    Bytes are what is typed and what is shown, without secrets; questions that a program asks its
    terminal are answered on this side. The last message is ``{"exit_code": …}``.
    """
    asked = await opening(channel, TerminalRequest)
    if asked is None:
        return
    async with session.use():
        terminals = session.terminals
        opened = await terminals.open(rows=asked.rows, cols=asked.cols, cwd=asked.cwd)
        terminal_id = opened.terminal_id
        try:
            await channel.send({"terminal_id": terminal_id})
            async with one_error() as tasks:
                tasks.start_soon(_take, session, terminal_id, channel, tasks.cancel_scope)
                async for read in terminals.follow(terminal_id):
                    if read.missed:
                        await channel.send({"missed_bytes": read.missed})
                    if data := b"".join(read.entries):
                        await channel.send(data)
                tasks.cancel_scope.cancel()
            here = (each for each in terminals.infos if each.terminal_id == terminal_id)
            info = next(here, None)  # gone when a tool has closed it
            await channel.send({"exit_code": info.exit_code if info else None})
        finally:
            with anyio.move_on_after(CLOSE_S, shield=True), suppress(SandboxError):
                await terminals.close(terminal_id)


async def _take(
    session: Session, terminal_id: str, channel: Channel, scope: anyio.CancelScope
) -> None:
    """Type what comes, until the other end goes."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while (message := await channel.receive()) is not None:
        if isinstance(message, bytes):
            for at in range(0, len(message), MAX_TYPED_BYTES):
                text = decoder.decode(message[at : at + MAX_TYPED_BYTES])
                try:
                    await session.terminals.write(terminal_id, text)
                except Conflict:
                    break  # its program has ended, or does not read: the keys are lost, as ever
        else:
            size = parsed(message, Resize)
            await session.terminals.resize(terminal_id, size.rows, size.cols)
    scope.cancel()
