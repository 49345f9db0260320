"""The provisioner's end of a bridge: a process that holds one session, and what it tells of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

POLL_S = 0.01
_ENV = {"PYDANTIC_DISABLE_PLUGINS": "__all__"}
"""Else all distributions of the client's environment are searched for some."""


class BridgeProcess:
    """A bridge, started with the environment and the outlets that a kernel would have had."""

    def __init__(self, env: Mapping[str, str], **outlets: Any) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # -P, and another folder: nothing is imported from where an untrusted notebook lies.
            argv = [sys.executable, "-P", "-m", "sandbox.jupyter.bridge", str(theirs.fileno())]
            try:
                self._process = subprocess.Popen(
                    argv,
                    env={**env, **_ENV},
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                    **outlets,
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        self._control = ours
        self._rest = b""
        self._is_over = False
        self.is_started = False
        """Whether its kernel answers."""
        self.ended: int | None = None
        """What its kernel ended with."""
        self.reason = ""
        """Why, or why it was not started."""
        self.session_id = ""

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        self._read()
        return self._is_over

    def order(self, do: str, **more: object) -> None:
        """Tell it to do something; one that has ended does not."""
        if do == "start":
            self.is_started, self.ended, self.reason = False, None, ""
        line = json.dumps({"do": do, **more}).encode() + b"\n"
        with contextlib.suppress(OSError):
            self._control.send(line)

    def poll(self) -> int | None:
        """None while its kernel lives, else what that ended with."""
        self._read()
        return self.ended

    async def until(self, condition: Callable[[], bool], timeout_s: float = math.inf) -> bool:
        """Wait until something is so, or it has told all it will; whether it is so."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            self._read()
            if condition():
                return True
            if self._is_over or asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(POLL_S)

    def let_go(self) -> None:
        """Have it remove what it opened, and end."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)

    def end(self) -> None:
        """End it at once, whatever it leaves behind."""
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, 9)

    def _read(self) -> None:
        while not self._is_over:
            try:
                data = self._control.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._finish()
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._take(json.loads(line))

    def _take(self, told: dict[str, Any]) -> None:
        match told["told"]:
            case "started":
                self.is_started = True
                self.session_id = told["session_id"]
            case "failed" | "ended":
                self.ended, self.reason = told.get("code", 1), told.get("reason", "")
            case _:
                pass

    def _finish(self) -> None:
        """Its end is closed, so it ends, or has ended."""
        self._is_over = True
        self._control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        if self.ended is None:
            self.ended = self._process.returncode or 0
