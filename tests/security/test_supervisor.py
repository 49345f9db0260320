"""Attacks of a cell on the machinery of its own session: supervisor, bridge, kernels, modules.

The supervisor runs beside the cell with the same uid, so a cell can harm it. What must hold is that
the harm ends at the session: the caller hears the truth within bounds, the controller and the
neighbour go on, and the supervisor knows nothing worth stealing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from sandbox.container import connection
from sandbox.errors import SandboxError
from sandbox.link.link import ByteStream, Link

from .conftest import CANARY, Attacked, Opener, may_end_in, program
from .inside import attempt, supervisor_pid

pytestmark = pytest.mark.anyio


async def test_killing_the_supervisor_ends_the_session_truthfully(
    victim: Attacked, neighbour: Attacked
) -> None:
    """Invariant 8: without its supervisor a session is lost, and the caller is told so."""

    def kill() -> object:
        import os
        import signal

        os.kill(supervisor_pid(), signal.SIGKILL)
        return True

    with pytest.raises(SandboxError) as caught:
        await victim.attack(kill)
    assert caught.value.code in ("link_lost", "session_lost")
    assert await victim.fate() == "session_lost"
    assert await neighbour.is_alive()


class Impatient(Link):
    """A link that gives silence up after seconds, so that a test need not wait a minute."""

    def __init__(self, io: ByteStream, **options: Any) -> None:
        super().__init__(io, **{**options, "ping_interval_s": 0.5})

    async def greeting(self, timeout_s: float = 4.0) -> Mapping[str, Any]:
        return await super().greeting(timeout_s)


async def test_a_stopped_supervisor_cannot_hold_a_caller_for_ever(
    opener: Opener, neighbour: Attacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 3: silence is bounded: a supervisor under SIGSTOP counts as gone."""
    monkeypatch.setattr(connection, "Link", Impatient)

    def stop() -> object:
        import os
        import signal

        os.kill(supervisor_pid(), signal.SIGSTOP)
        return True

    async with opener() as attacked:
        with anyio.fail_after(150):
            with pytest.raises(SandboxError) as caught:
                await attacked.attack(stop)
            assert caught.value.code in ("link_lost", "session_lost")
            assert await attacked.fate(140) == "session_lost"
    assert await neighbour.is_alive()


async def test_killing_the_bridge_costs_a_reconnection_and_no_state(victim: Attacked) -> None:
    """Invariant 9: the link is made again, and the kernel's variables are there."""
    assert (await victim.cell("kept = 41")).status == "ok"

    def kill() -> object:
        import os
        import signal

        killed = 0
        for name in filter(str.isdigit, os.listdir("/proc")):
            words = attempt(lambda n=name: open(f"/proc/{n}/cmdline", "rb").read())  # noqa: SIM115
            if isinstance(words, bytes) and b"bridge.py" in words:
                os.kill(int(name), signal.SIGKILL)
                killed += 1
        return killed

    with may_end_in("link_lost"):
        assert await victim.attack(kill) >= 1
    assert await victim.fate() == "alive"
    result = await victim.cell("print(kept + 1)")
    assert result.outputs[0]["text"].strip() == "42"


async def test_posing_as_a_bridge_wins_nothing(victim: Attacked, neighbour: Attacked) -> None:
    """Invariant 3: a cell may take the supervisor's socket; it talks to itself, and the controller
    makes its link again."""

    def pose() -> object:
        import os
        import socket

        reader, _ = os.pipe()
        _, writer = os.pipe()
        answers = []
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as client:
                got = attempt(lambda c=client: c.connect("\0sandbox-supervisor"))
                answers.append(got if isinstance(got, str) else "connected")
                if got is None:
                    attempt(lambda c=client: socket.send_fds(c, [b"x"], [reader, writer]))
        return answers

    with may_end_in("link_lost", "session_lost"):
        await victim.attack(pose)
    assert await victim.fate() in ("alive", "session_lost")
    assert await neighbour.is_alive()


async def test_garbage_written_into_the_link_is_refused(
    victim: Attacked, neighbour: Attacked
) -> None:
    """Invariant 3: a cell that writes into the supervisor's own pipes breaks its link, not ours."""

    def scribble() -> object:
        import os

        pid = supervisor_pid()
        written = 0
        for name in os.listdir(f"/proc/{pid}/fd"):
            path = f"/proc/{pid}/fd/{name}"
            if not str(attempt(lambda p=path: os.readlink(p))).startswith("pipe:"):
                continue
            descriptor = attempt(lambda p=path: os.open(p, os.O_WRONLY | os.O_NONBLOCK))
            if isinstance(descriptor, int):
                got = attempt(lambda d=descriptor: os.write(d, b"\xff" * 4096))
                written += isinstance(got, int)
        return written

    with may_end_in("link_lost", "session_lost", "protocol_error"):
        await victim.attack(scribble)
    assert await victim.fate() in ("alive", "session_lost")
    assert await neighbour.is_alive()


async def test_the_supervisor_knows_nothing_worth_stealing(victim: Attacked) -> None:
    """Invariant 2: its memory and environment hold no token, session id, principal or owner."""

    def search(backwards: list[str]) -> object:
        import os
        import re

        pid = supervisor_pid()
        wanted = [word[::-1].encode() for word in backwards]  # not as the request carries them
        found, read = [], 0
        if isinstance(attempt(lambda: os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY))), str):
            return {"found": [], "read": "refused"}
        with open(f"/proc/{pid}/maps") as lines:
            areas = [re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line) for line in lines]
        with open(f"/proc/{pid}/mem", "rb", 0) as memory:
            for area in filter(None, areas):
                start, stop = int(area[1], 16), int(area[2], 16)
                if stop - start > 1 << 28:
                    continue

                def look(start: int = start, stop: int = stop) -> bytes:
                    memory.seek(start)
                    return memory.read(stop - start)

                data = attempt(look)
                if isinstance(data, bytes):
                    read += len(data)
                    found += [word[::-1].decode() for word in wanted if word in data]
        return {"found": found, "read": read}

    session = victim.session
    secrets = [session.session_id, victim.caller.principal, victim.manager.owner]
    secrets += [str(session.container_id), CANARY]
    answer = await victim.attack(search, [word[::-1] for word in secrets])
    assert answer["read"] == "refused" or answer["read"] > 1_000_000
    assert answer["found"] == []


async def test_modules_in_the_workspace_shadow_nothing_of_ours(victim: Attacked) -> None:
    """Invariant 4: supervisor, bridge and probe import from the image, whatever the workspace
    holds."""

    def plant() -> object:
        import os
        import site

        poison = "import os; os.close(os.open('/tmp/poisoned', os.O_CREAT)); raise SystemExit(3)\n"
        names = ("json", "socket", "asyncio", "sitecustomize", "usercustomize", "zmq", "sandbox")
        folders = ["/workspace", "/tmp", site.getusersitepackages()]
        for folder in folders:
            os.makedirs(folder, exist_ok=True)
            for name in names:
                with open(f"{folder}/{name}.py", "w") as stream:
                    stream.write(poison)
        with open(f"{folders[2]}/evil.pth", "w") as stream:
            stream.write("import os; os.close(os.open('/tmp/poisoned', os.O_CREAT))\n")
        return len(folders)

    assert await victim.attack(plant) == 3
    async with victim.session.use():
        assert (await victim.session.files.stat("/workspace/json.py")).type == "file"
        listed = await victim.session.files.list("/tmp", limit=100)
        assert "poisoned" not in {entry.name for entry in listed.entries}
    result = await victim.shell(
        "/usr/bin/env -i /usr/bin/python3 -I -c 'import json; print(json.__file__)'"
    )
    assert "/usr/lib" in result.stdout


async def test_escape_sequences_reach_no_caller(sandbox: Attacked) -> None:
    """Invariant 3: what a cell or command prints cannot drive the terminal of whoever reads it."""
    sequences = (
        "\\x1b]0;owned\\x07", "\\x1b[2J", "\\x1b]52;c;aGk=\\x07", "\\x9b31m", "\\x1bP+q\\x1b\\\\",
    )  # fmt: skip
    code = (
        f"import sys\ntext = '{''.join(sequences)}done'\nprint(text); print(text, file=sys.stderr)"
    )
    command = await sandbox.shell("python3 -", stdin=code)
    for text in (command.stdout, command.stderr):
        assert "\x1b" not in text
        assert "\x9b" not in text
        assert "\x07" not in text
        assert "done" in text
    cell = await sandbox.cell(f"{code}\nraise ValueError(text)")
    assert cell.status == "error"
    assert cell.error is not None
    texts = [cell.error.value, cell.error.traceback, cell.error.name]
    texts += [str(output.get("text", "")) for output in cell.outputs]
    assert any("done" in text for text in texts)
    assert not any(mark in text for text in texts for mark in ("\x1b", "\x9b", "\x07"))


async def test_a_cell_cannot_pass_itself_off_as_another(victim: Attacked) -> None:
    """Invariant 8: messages with forged parents do not end or colour somebody else's execution."""
    first = await victim.cell("1 + 1")
    forged = await victim.cell(
        f"""
        kernel = get_ipython().kernel
        session, socket = kernel.session, kernel.iopub_socket
        parent = {{"header": {{"msg_id": "{first.execution_id}", "session": "x"}}}}
        for kind, content in (
            ("stream", {{"name": "stdout", "text": "forged"}}),
            ("status", {{"execution_state": "idle"}}),
            ("error", {{"ename": "Forged", "evalue": "", "traceback": []}}),
        ):
            session.send(socket, kind, content, parent=parent)
        print("honest")
        """
    )
    assert forged.status == "ok"
    assert "".join(output.get("text", "") for output in forged.outputs).strip() == "honest"
    again = await victim.result_of(first.execution_id)
    assert (again.status, again.error) == ("ok", None)


async def test_sessions_end_within_seconds_whatever_runs_in_them(opener: Opener) -> None:
    """Invariant 7: a session whose processes ignore every signal is closed like any other."""
    async with opener() as attacked:
        await attacked.shell("trap '' TERM HUP INT; for n in 1 2 3; do (sleep 1000 &) ; done")
        with anyio.fail_after(10):
            await attacked.manager.close(attacked.caller, attacked.session.session_id)
        assert await attacked.fate() == "session_lost"


async def test_whatever_a_kernel_says_over_its_pair_harms_its_own_kernel_only(
    victim: Attacked, neighbour: Attacked
) -> None:
    """Invariant 3: a kernel's end of its pair of sockets gives it no power over the supervisor."""

    def babble() -> object:
        import json
        import os
        import random
        import socket
        import struct

        pair = socket.socket(fileno=os.dup(3))

        def frame(*parts: bytes) -> bytes:
            body = bytes((len(parts),)) + b"".join(struct.pack("!I", len(p)) + p for p in parts)
            return struct.pack("!I", len(body)) + body

        deep = b"[" * 50_000
        hostile: list[object] = [{}, {"answer": 1, "result": deep.decode()}, {"answer": 10**30}]
        hostile += [{"answer": True}, {"cell": ["x"]}, {"cell": "nobody's"}, {"spawned": True}, 7]
        for each in hostile:
            pair.sendall(frame(b"host", json.dumps(each).encode()))
        for parts in ((b"host",), (b"host", deep), (b"nowhere", b"{}"), (b"\xff\xfe",), ()):
            pair.sendall(frame(*parts))
        pair.sendall(frame(b"iopub", b"{}", b"{}", b"{}", deep))
        pair.sendall(frame(b"iopub", deep, deep, deep, b"{}"))
        chance = random.Random(7)  # noqa: S311  # the same attack each time
        for _ in range(2000):
            parts = [chance.randbytes(chance.randrange(40)) for _ in range(chance.randrange(7))]
            pair.sendall(frame(chance.choice([b"host", b"iopub", b"shell", b"stdin"]), *parts))
        # Descriptors go one way only: what is handed the other way is not taken.
        socket.send_fds(pair, [frame(b"host", b"{}")], [0] * 64)
        return len(os.listdir(f"/proc/{supervisor_pid()}/task"))

    result = await victim.cell(program(babble))
    assert result.status == "ok", result
    printed = "".join(str(output.get("text", "")) for output in result.outputs)
    assert printed.strip().endswith("1")
    assert await victim.is_alive()

    # The head of a frame that is longer than can be: what comes after it is never told.
    jam = r"import os, time; os.write(3, b'\xff\xff\xff\xf0'); time.sleep(60)"
    result = await victim.cell(jam, timeout_s=5)
    assert (result.status, result.state) == ("timeout", "restarted")
    assert await victim.is_alive()
    assert await neighbour.is_alive()
