"""`sandbox shell`: an interactive terminal in a sandbox."""

from __future__ import annotations

import signal

import anyio

from sandbox.cli import exits, logs
from sandbox.cli.newsession import new_session
from sandbox.cli.rawterminal import RawTerminal
from sandbox.cli.sessionaccess import Access, heard
from sandbox.cli.signals import SignalEnding, ended_by_signals
from sandbox.cli.targets import ControllerTarget, existing_session
from sandbox.config import Settings
from sandbox.errorgroups import one_error
from sandbox.server.channels.channel import Channel


def run_shell(
    settings: Settings, target: ControllerTarget, session: str, policy: str, cwd: str
) -> int:
    """Open a terminal here and return its shell's exit code.

    Args:
        session: The session of a served controller that it is opened in; empty for a new one,
            which ends with it.

    Raises:
        SandboxError: It could not be opened.
    """
    logs.configure(settings.log_level)
    RawTerminal()  # refuses before anything is opened
    return anyio.run(_run, settings, target, session, policy, cwd)


async def _run(
    settings: Settings, target: ControllerTarget, session: str, policy: str, cwd: str
) -> int:
    async with ended_by_signals() as ending:
        if session:
            async with existing_session(settings, target, session) as access:
                return await _attach(access, cwd, ending)
        opened = new_session(settings, target, policy, "sandbox shell", {"policy": policy})
        async with opened as (access, _):
            return await _attach(access, cwd, ending)
    return ending.exit_code


async def _attach(access: Access, cwd: str, ending: SignalEnding) -> int:
    code = exits.INFRASTRUCTURE
    async with access.channel("terminal") as channel:
        with RawTerminal() as terminal:
            rows, cols = terminal.size()
            await channel.send({"rows": rows, "cols": cols, "cwd": cwd})
            async with one_error() as tasks:
                tasks.start_soon(_type, terminal, channel)
                tasks.start_soon(_follow_window, terminal, channel)
                code = await _show(terminal, channel)
                tasks.cancel_scope.cancel()
    return code


async def _show(terminal: RawTerminal, channel: Channel) -> int:
    while True:
        message = await heard(channel)
        if isinstance(message, bytes):
            await terminal.show(message)
        elif "exit_code" in message:
            code = message["exit_code"]
            return code if type(code) is int and 0 <= code < 256 else exits.FAILED
        elif type(missed := message.get("missed_bytes")) is int:
            await terminal.show(f"\r\n[{missed} bytes were left out]\r\n".encode())


async def _type(terminal: RawTerminal, channel: Channel) -> None:
    while data := await terminal.read():
        await channel.send(data)


async def _follow_window(terminal: RawTerminal, channel: Channel) -> None:
    with anyio.open_signal_receiver(signal.SIGWINCH, signal.SIGCONT) as signals:
        async for number in signals:
            if number == signal.SIGCONT:
                terminal.take()
            rows, cols = terminal.size()
            await channel.send({"rows": rows, "cols": cols})
