"""What is said over a link about commands: see ``docs/link.md``."""

from __future__ import annotations

from typing import Annotated

import anyio
from pydantic import Field, StringConstraints

from sandbox.answers import Answer, parse
from sandbox.commands.command import Command
from sandbox.commands.models import CommandRequest
from sandbox.errors import InfrastructureError, ProtocolError
from sandbox.link import wire
from sandbox.link.link import Link

ANSWER_TIMEOUT_S = 60.0
STDIN_PIECE_BYTES = 64 * 1024
MAX_LISTED = 256
SPARED_BYTES = 1536 * 1024
"""What comes is acknowledged so much later, and at the latest when as much again has come: the
supervisor, whose log holds more than both, has it for the next controller."""
PIECE_OVERHEAD = 256
"""What the supervisor counts for a piece beside its bytes."""


class ListedCommand(Answer):
    command_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class CommandListing(Answer):
    commands: Annotated[list[ListedCommand], Field(max_length=MAX_LISTED)]


async def listed(link: Link) -> frozenset[str]:
    """The commands that the supervisor knows.

    Raises:
        ProtocolError: Its list makes no sense.
    """
    listing = parse(CommandListing, await link.call("command.list"))
    return frozenset(each.command_id for each in listing.commands)


async def start(link: Link, command: Command, request: CommandRequest) -> None:
    """Have the supervisor start a command.

    Raises:
        SandboxError: It refuses, or does not answer.
    """
    given = {"cwd": request.cwd, "env": dict(request.env)}
    what = "command" if isinstance(request.command, str) else "argv"
    stream = link.open(
        "command.start",
        command_id=command.command_id,
        timeout_s=command.record.timeout_s,
        **{what: request.command},
        **{name: value for name, value in given.items() if value},
    )
    try:
        with anyio.fail_after(ANSWER_TIMEOUT_S):
            for at in range(0, len(request.stdin), STDIN_PIECE_BYTES):
                await stream.send(request.stdin[at : at + STDIN_PIECE_BYTES])
            stream.end()
            await stream.receive_json()
    except TimeoutError as exc:
        raise InfrastructureError("The supervisor did not start the command in time.") from exc
    finally:
        stream.reset()
    command.is_started = True


async def read(link: Link, command: Command) -> None:
    """Read a command's output until it has ended, and let the supervisor forget what is read.

    Raises:
        ProtocolError: What comes makes no sense.
        LinkLost: The link ended.
    """
    stream = link.open("command.attach", command_id=command.command_id, after=command.position)
    try:
        offset = (await stream.receive_json()).get("offset")
        if type(offset) is not int or not 0 <= offset < 2**63:
            raise ProtocolError("The supervisor did not say where the output goes on.")
        command.resume(offset)
        if command.acknowledged:  # what was said last may have been lost with its link
            await stream.send_json({"ack": command.acknowledged})
        async for message in stream:
            if message.tag == wire.JSON:
                command.conclude(message.json())
                return
            command.take(message.tag, message.data)
            command.unspared += len(message.data) + PIECE_OVERHEAD
            if command.unspared >= SPARED_BYTES:
                command.acknowledged = command.spared_from
                command.unspared, command.spared_from = 0, command.position
                await stream.send_json({"ack": command.acknowledged})
        raise ProtocolError("The supervisor did not say how the command ended.")
    finally:
        stream.reset()


async def stop(link: Link, command: Command) -> None:
    """Have the supervisor kill a command with all that it has started."""
    await link.call("command.stop", command_id=command.command_id)


async def forget(link: Link, command_id: str) -> None:
    """Have the supervisor forget a command, which it kills if it still runs."""
    await link.call("command.forget", command_id=command_id)
