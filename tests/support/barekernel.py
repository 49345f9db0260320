"""A kernel without Jupyter, to branch: one loop of asyncio that runs source it is given.

``python barekernel.py FD`` is such a kernel; :class:`BareKernel` is the other end of one.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WAIT_S = 20.0
_MAX = 1 << 16
_PR_SET_CHILD_SUBREAPER = 36
_marks = iter(range((1 << 60) + 1024 * (os.getpid() << 16), 1 << 59, -1024))


class BareKernel:
    """One process, and the ends of it that a supervisor has."""

    def __init__(self, pid: int, pair: socket.socket, output: int, errors: int) -> None:
        self.pid = pid
        self.pair = pair
        self.output = output
        self.errors = errors

    @classmethod
    def start(cls, **environment: str) -> BareKernel:
        """Start one; what becomes an orphan below it is ours from then on."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        output, written = os.pipe()
        errors, told = os.pipe()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-I", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=told,
            )
        process.returncode = 0  # it is waited for by its number, as branches are
        os.close(written)
        os.close(told)
        ours.settimeout(WAIT_S)
        return cls(process.pid, ours, output, errors)

    def say(self, request: dict[str, Any], fds: tuple[int, ...] = ()) -> Any:
        """Send a request and wait for the answer."""
        return say(self.pair, request, fds)

    def run(self, source: str) -> Any:
        """Run source in it, and return what it leaves in ``_``.

        Raises:
            AssertionError: It raised.
        """
        answer = self.say({"run": source})
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def branch(self, *, reseed: bool = True) -> BareKernel:
        """A live branch of it."""
        answer, made = self._ask({"branch": "live", "reseed": reseed})
        assert made is not None, answer
        return made

    def refused(self) -> list[dict[str, str]]:
        """Why it cannot be branched, which it must refuse."""
        answer, made = self._ask({"branch": "live"})
        assert made is None, "it was branched"
        return answer["blockers"]

    def checkpoint(self) -> Checkpoint:
        """A frozen branch of it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(WAIT_S)
        with theirs:
            request = {"branch": "frozen", "mark": next(_marks)}
            answer = self.say(request, (theirs.fileno(),))
        assert "branched" in answer, answer
        return Checkpoint(answer["branched"], ours)

    def printed(self) -> str:
        """What has come through its stdout until now."""
        found = b""
        while select.select([self.output], [], [], 0)[0] and (data := os.read(self.output, _MAX)):
            found += data
        return found.decode()

    def kill(self) -> None:
        """End it and wait until it has ended."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.close()

    def close(self) -> None:
        """Close our ends, once it has ended."""
        self.pair.close()
        os.close(self.output)
        os.close(self.errors)

    def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], BareKernel | None]:
        return ask_live(self.pair, request)


class Checkpoint:
    """A frozen branch."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self.control = control

    def thaw(self) -> BareKernel:
        """A live branch of it."""
        answer, made = ask_live(self.control, {})
        assert made is not None, answer
        return made

    def drop(self) -> int:
        """Let go of it; returns how it ended."""
        self.control.close()
        return os.waitpid(self.pid, 0)[1]


def say(pair: socket.socket, request: dict[str, Any], fds: tuple[int, ...] = ()) -> Any:
    """Send a request and wait for the answer."""
    socket.send_fds(pair, [json.dumps(request).encode()], fds)
    data = pair.recv(_MAX)
    assert data, "it has ended"
    return json.loads(data)


def ask_live(
    pair: socket.socket, request: dict[str, Any]
) -> tuple[dict[str, Any], BareKernel | None]:
    """Ask for a live branch: the answer, and the branch if there is one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(WAIT_S)
    output, written = os.pipe()
    errors, told = os.pipe()
    try:
        request = {**request, "mark": next(_marks)}
        answer = say(pair, request, (theirs.fileno(), written, told))
    finally:
        theirs.close()
        os.close(written)
        os.close(told)
    if "branched" in answer:
        return answer, BareKernel(answer["branched"], ours, output, errors)
    ours.close()
    os.close(output)
    os.close(errors)
    return answer, None


def serve(fd: int) -> None:
    """Be such a kernel on this descriptor, until the other end is gone."""
    sys.path.insert(0, str(ROOT))
    from sandbox.supervisor.pykernel.branching import KernelPlace, handle_branch

    os.set_inheritable(fd, False)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    pair = socket.socket(fileno=fd)
    names: dict[str, Any] = {"loop": loop, "__name__": "__main__"}

    def begin() -> None:
        pass

    place = KernelPlace({fd: 0, 1: 1, 2: 2}, loop, sys.stdout.flush, begin)
    while True:
        readable = asyncio.Event()
        loop.add_reader(fd, readable.set)
        loop.run_until_complete(readable.wait())
        data, fds, _, _ = socket.recv_fds(pair, _MAX, 3)
        if not data:
            os._exit(0)
        request = json.loads(data)
        if "run" in request:
            answer: dict[str, Any] | None = run(request["run"], names)
        else:
            answer = handle_branch(request, fds, place)
        if answer is not None:
            pair.send(json.dumps(answer, default=repr).encode())


def run(source: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run source, and answer what it leaves in ``_``."""
    names["_"] = None
    try:
        exec(source, names)  # noqa: S102  # which is what a kernel does
    except BaseException:
        return {"error": traceback.format_exc()}
    return {"value": names["_"]}


if __name__ == "__main__":
    serve(int(sys.argv[1]))
