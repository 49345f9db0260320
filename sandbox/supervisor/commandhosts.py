"""Commands: programs whose output is kept for whoever attaches, so that they outlive a link."""

from __future__ import annotations

from typing import Any

from sandbox.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded
from sandbox.link import wire
from sandbox.link.stream import Stream
from sandbox.supervisor.outputlog import OutputLog
from sandbox.supervisor.programs import Program, Programs
from sandbox.supervisor.requests import answer, identifier, whole
from sandbox.supervisor.tasks import Background, alongside

MAX_COMMANDS = 128
"""Running ones, and ended ones that nobody has told to forget."""
MAX_STDIN_BYTES = 8 * 1024 * 1024
_MAX_OFFSET = 2**63


class CommandHost:
    """One command, its process and its log."""

    def __init__(self, command_id: str, program: Program) -> None:
        self.command_id = command_id
        self.log = OutputLog()
        self._program = program
        self._is_stopped = False

    def describe(self) -> dict[str, Any]:
        """Its entry in ``command.list``."""
        return {
            "command_id": self.command_id,
            "pid": self._program.child.pid,
            "alive": self._program.child.alive,
            "first_offset": self.log.first,
            "last_offset": self.log.last,
        }

    async def live(self, stdin: bytes, tasks: Background) -> None:
        """Feed it, and keep what it writes, until it has ended."""
        ending: dict[str, Any] = {}
        try:
            async with alongside(self._feed(stdin)):
                ending = await self._program.run(self.log.append)
        finally:
            self.log.finish({**ending, "stopped": self._is_stopped} if ending else {})
            self._program.close(tasks)

    async def stop(self) -> None:
        """Kill it with all that it has started; harmless when it has ended."""
        if self._program.child.alive:
            self._is_stopped = True
            await self._program.kill()

    async def _feed(self, stdin: bytes) -> None:
        await self._program.write(stdin)
        self._program.end_input()


class CommandHosts:
    """All commands of the container, and the operations on them."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._commands: dict[str, CommandHost] = {}

    async def start(self, stream: Stream) -> None:
        """``command.start``"""
        command_id = identifier(stream.request, "command_id")
        launch = self._programs.launch(stream.request)
        # All of it before anything runs: a link that is lost half-way has started nothing.
        stdin = await _stdin(stream)
        if command_id in self._commands:
            raise Conflict(f"The command {command_id} exists already.")
        if len(self._commands) >= MAX_COMMANDS:
            raise QuotaExceeded(f"There are {MAX_COMMANDS} commands already.")
        program = Program(launch, self._programs.children)
        command = self._commands[command_id] = CommandHost(command_id, program)
        self._programs.tasks.start(command.live(stdin, self._programs.tasks))
        await answer(stream, command_id=command_id, pid=program.child.pid)

    async def list(self, stream: Stream) -> None:
        """``command.list``"""
        await answer(stream, commands=[c.describe() for c in self._commands.values()])

    async def attach(self, stream: Stream) -> None:
        """``command.attach``"""
        log = self._find(stream).log
        after = whole(stream.request, "after", 0, 0, _MAX_OFFSET)
        position = min(max(after, log.first), log.last)
        await stream.send_json({"offset": position})
        async with alongside(_acknowledge(stream, log)):
            async for tag, data in log.follow(position):
                await stream.send(data, tag)
            await stream.send_json(log.ending or {})
        stream.end()

    async def stop(self, stream: Stream) -> None:
        """``command.stop``"""
        await self._find(stream).stop()
        await answer(stream)

    async def forget(self, stream: Stream) -> None:
        """``command.forget``"""
        command = self._find(stream)
        del self._commands[command.command_id]
        command.log.close()
        await command.stop()
        await answer(stream)

    def _find(self, stream: Stream) -> CommandHost:
        command = self._commands.get(identifier(stream.request, "command_id"))
        if command is None:
            raise NotFound("There is no such command.")
        return command


async def _stdin(stream: Stream) -> bytes:
    stdin = bytearray()
    async for message in stream:
        if message.tag != wire.BYTES:
            raise InvalidRequest("A command's stdin is sent as bytes.")
        stdin += message.data
        if len(stdin) > MAX_STDIN_BYTES:
            raise InvalidRequest(f"A command's stdin has at most {MAX_STDIN_BYTES} bytes.")
    return bytes(stdin)


async def _acknowledge(stream: Stream, log: OutputLog) -> None:
    """Forget what the reader has; then stay, to notice when it goes."""
    async for message in stream:
        log.acknowledge(whole(message.json(), "ack", 0, 0, _MAX_OFFSET))
    await stream.wait_reset()
