"""Attacks on the person at the command line: on the terminal, the folder, and who may attach."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx2
import pytest

from sandbox.cli.restclient import RestClient
from sandbox.cli.sessionaccess import heard
from sandbox.errors import SandboxError
from sandbox.server.channels.channel import Channel

from ..support.ptyprocess import PtyProcess
from ..support.served import Served, close_all, environment, sandbox, serve
from ..support.wsclient import WsClient

pytestmark = pytest.mark.anyio

HOSTILE = r"""
import sys
ESC = "\x1b"
for attack in ("]52;c;aGk=\a", "]0;title\a", "]8;;http://x/\a", "]1337;File=:AA==\a", "]10;?\a",
               "P$qm\x1b\\", "P+q544e\x1b\\", "_Gf=24;AA\x1b\\", "Ptmux;\x1b\x1b]52;c;aGk=\a\x1b\\",
               "[6n", "[c", "[>c", "[5n", "[21t", "[8;1;1t", "[>q", "[?1$p", "[5i", "[>4;2m", "[?u",
               "[3J", "c", "Z", "#8", "%@"):
    sys.stdout.write(ESC + attack)
sys.stdout.buffer.write(b"\x05\x9b6n\xc2\x9b6n\xc2\x9d52;c;aGk=\xc2\x9c")
sys.stdout.write(ESC + "[31mred" + ESC + "[m over\n")
sys.stdout.flush()
"""
FORBIDDEN = (
    *(b"\x1b]", b"\x1bP", b"\x1b_", b"\x1b[6n", b"\x1b[c", b"\x1b[>", b"\x1b[5n", b"t\x1b"),
    *(b"\x1b[21t", b"\x1b[8;", b"$p", b"\x1b[5i", b"\x1b[?u", b"\x1b[3J", b"\x1bc", b"\x1bZ"),
    *(b"\x1b#", b"\x1b%", b"\x05", b"\x9b", b"\x9d"),
)
NAMES = r"""
import os
os.makedirs("out/deep")
os.symlink("/etc", "out/etc")
os.symlink("/etc/passwd", "out/passwd")
for name in ("a\x1b]0;b", "new\nline", ".bashrc", "back\\slash", "good"):
    open(os.path.join("out", name), "w").write("theirs")
open(b"out/\xff\xfe", "w").close()
open("good", "w").write("theirs")
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("served")) as running:
        try:
            yield running
        finally:
            close_all(running)


def test_what_a_program_writes_reaches_no_more_of_a_terminal_than_its_screen(
    tmp_path: Path,
) -> None:
    """Invariant 3: ask the person's terminal, set its clipboard and title, print, resize it."""
    (tmp_path / "hostile.py").write_text(HOSTILE)
    words = ["run", "--kernel", "bash", "--with", "hostile.py", "-c", "python hostile.py"]
    with PtyProcess(*words, env=environment(tmp_path / "state"), cwd=tmp_path) as process:
        assert process.wait() == 0, process.shown
        by_run = process.shown
    with PtyProcess("shell", env=environment(tmp_path / "state"), cwd=tmp_path) as process:
        process.see("$ ")
        process.type("python - <<'END'\r" + HOSTILE.replace("\n", "\r") + "END\rexit\r")
        assert process.wait() == 0, process.shown
        by_shell = process.shown[process.shown.rindex(b"END") :]
    for shown in (by_run, by_shell):
        assert b"red" in shown
        assert b" over" in shown
        assert [each for each in FORBIDDEN if each in shown] == []


def test_names_that_code_chooses_lead_nowhere_but_into_the_target_folder(tmp_path: Path) -> None:
    """Invariant 3: names with links, controls and dots, and files that a person has already."""
    (tmp_path / "names.py").write_text(NAMES)
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (target / "good").write_text("mine")
    (target / "out").symlink_to(outside, target_is_directory=True)
    words = ["run", "--get", "out", "--get", "good", "--to", str(target), "names.py"]
    done = subprocess.run(
        [sys.executable, "-m", "sandbox", *words],
        cwd=tmp_path,
        env=environment(tmp_path / "state"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert (target / "good").read_text() == "mine"
    assert list(outside.iterdir()) == []
    assert sorted(os.listdir(target)) == ["good", "out"]
    assert "\x1b" not in done.stderr
    (target / "out").unlink()
    done = sandbox(tmp_path / "state", *words[:-1], str(tmp_path / "names.py"))
    assert sorted(os.listdir(target / "out")) == ["deep", "good"]


@pytest.mark.parametrize(
    ("scope", "kinds"),
    [
        ("files:read", ("terminal", "command", "kernel")),
        ("execute", ("terminal", "command")),
        ("terminal", ("kernel",)),
    ],
)
async def test_a_token_attaches_to_nothing_beyond_its_scopes(
    served: Served, scope: str, kinds: tuple[str, ...]
) -> None:
    """Invariant 6: attach a terminal, command or kernel with a token for something else."""
    owner = ["token", "create", "--principal", "local", "--policies", "offline"]
    token = sandbox(served.state, *owner, "--scopes", scope).stdout.strip()
    headers = {"Authorization": f"Bearer {token}"}
    port = int(served.base.rpartition(":")[2])
    for kind in kinds:
        path = f"/mcp/v1/sessions/s-absent/{kind}"
        client = await WsClient.to(port, path, headers)
        assert client.answer.status == 403, kind
        client.close()


async def test_nobody_attaches_to_the_session_of_another(served: Served) -> None:
    """Invariant 6: attach to a foreign session, which answers like one that is not there."""
    async with served.http() as http:
        session_id = (await http.post("/mcp/v1/sessions", json={})).json()["session_id"]
    made = ["token", "create", "--principal", "eve", "--policies", "offline", "--scopes"]
    token = sandbox(served.state, *made, "terminal,execute").stdout.strip()
    headers = {"Authorization": f"Bearer {token}"}
    port = int(served.base.rpartition(":")[2])
    answers: list[tuple[int, bytes]] = []
    for wanted in (session_id, "s-absent"):
        for kind in ("terminal", "command", "kernel"):
            client = await WsClient.to(port, f"/mcp/v1/sessions/{wanted}/{kind}", headers)
            shown = client.answer.body.replace(wanted.encode(), b"")
            answers.append((client.answer.status, shown))
            client.close()
    assert {status for status, _ in answers} == {404}
    assert len({body for _, body in answers}) == 1


async def heard_out(channel: Channel, data: bytes = b"", times: int = 0) -> None:
    """Send bytes so many times, then hear all there is."""
    with anyio.fail_after(120):
        for _ in range(times):
            await channel.send(data)
        while True:
            await heard(channel)


async def test_an_attached_program_is_bounded_in_what_it_asks_for(served: Served) -> None:
    """Invariant 3: sizes of a giant's window, endless input, requests that make no sense."""
    asked: dict[str, list[bytes | dict[str, object]]] = {
        "terminal": [{"rows": 10**6, "cols": 1}],
        "command": [{"argv": [], "stdin": False}],
        "kernel": [{"execute": 1}, {"execute": "1"}],
    }
    async with RestClient(served.base, served.token) as client:
        info = await client.call("POST", "sessions", body={})
        for kind, messages in [*asked.items(), ("command", [b"bytes"]), ("kernel", [{"x": [[]]}])]:
            async with client.channel("sessions", info["session_id"], kind) as channel:
                for message in messages:
                    await channel.send(message)
                with pytest.raises(SandboxError):
                    await heard_out(channel)
        async with client.channel("sessions", info["session_id"], "command") as channel:
            await channel.send({"argv": ["cat"], "stdin": True})
            with pytest.raises(SandboxError):
                await heard_out(channel, bytes(64 * 1024), 200)
    assert httpx2.get(f"{served.base}/readyz").status_code == 200
