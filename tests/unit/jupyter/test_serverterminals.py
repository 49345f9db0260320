"""A session's terminals over those of a Jupyter Server."""

from __future__ import annotations

import anyio
import pytest

from sandbox.errors import InfrastructureError
from sandbox.jupyter.serverterminals import ServerTerminals

from .conftest import Managed

pytestmark = pytest.mark.anyio


async def test_a_terminal_is_typed_into_read_and_resized(managed: Managed) -> None:
    terminals = managed.session.terminals
    info = await terminals.open(rows=30, cols=100)
    assert info.terminal_id.removeprefix("t-") in managed.terminals.terminals
    await terminals.write(info.terminal_id, "echo $((40 + 2)); stty size; pwd", ["enter"])
    text = ""
    with anyio.fail_after(20):
        while str(managed.root) not in text:
            text += (await terminals.read(info.terminal_id, 1)).new_text
    assert "42" in text
    assert "30 100" in text
    await terminals.resize(info.terminal_id, 40, 120)
    pty = managed.terminals.terminals[info.terminal_id.removeprefix("t-")].ptyproc
    assert pty.getwinsize() == (40, 120)
    await terminals.close(info.terminal_id)
    assert not pty.isalive()


async def test_a_terminal_of_somebody_elses_is_seen_with_what_it_showed(managed: Managed) -> None:
    name = managed.terminals.create()["name"]
    managed.terminals.terminals[name].ptyproc.write("echo from-$((1 + 1))\n")
    async with managed.session.use():
        (info,) = managed.session.terminals.infos
    assert info.terminal_id == f"t-{name}"
    text = ""
    with anyio.fail_after(20):
        while "from-2" not in text:
            text += (await managed.session.terminals.read(info.terminal_id, 1)).new_text


async def test_a_program_that_ends_is_told_with_its_exit_code(managed: Managed) -> None:
    terminals = managed.session.terminals
    info = await terminals.open()
    await terminals.write(info.terminal_id, "exit 3", ["enter"])
    with anyio.fail_after(20):
        while (view := await terminals.read(info.terminal_id, 1)).alive:
            pass
    assert view.exit_code == 3


async def test_looking_again_reads_nothing_twice(managed: Managed) -> None:
    terminals = managed.session.terminals
    info = await terminals.open()
    await terminals.write(info.terminal_id, "echo on''ce", ["enter"])
    managed.terminals.create()
    async with managed.session.use():
        pass
    text = ""
    with anyio.fail_after(20):
        while "once" not in text:
            text += (await terminals.read(info.terminal_id, 1)).new_text
    text += (await terminals.read(info.terminal_id, 0.2)).new_text
    assert text.count("once") == 1


async def test_a_server_without_terminals_has_none(managed: Managed) -> None:
    end = ServerTerminals(None, "/")
    assert end.is_current
    with pytest.raises(InfrastructureError):
        end._open("t-1", {"rows": 1, "cols": 1})
