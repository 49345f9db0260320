"""Cells and processes that end themselves, and cells that ask for what nobody can give."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

from sandbox.kernels.verdict import (
    DEBUGGER_REASON,
    EXIT_KEPT,
    EXIT_REASON,
    GETPASS_REASON,
    INPUT_REASON,
)

from ..support.served import Served
from .test_cli_run import run as sandbox_run
from .test_notebooks import notebook
from .test_notebooks import run as notebook_run

pytestmark = pytest.mark.anyio

WAIT_S = 60.0


@pytest.fixture
async def client(clean: Served) -> AsyncIterator[Client]:
    async with clean.client() as client:
        yield client


async def run(client: Client, code: str, **more: Any) -> tuple[bool, dict[str, Any], str]:
    """Whether the call failed, the structured result, and all its text."""
    with anyio.fail_after(WAIT_S):
        result = await client.call_tool("execute_code", {"code": code, **more})
    text = "\n".join(block.text for block in result.content if block.type == "text")
    return bool(result.is_error), result.structured_content or {}, text


@pytest.mark.parametrize(
    "leave", ["exit()", "quit()", "import sys; sys.exit(0)", "raise SystemExit"]
)
async def test_leaving_with_0_is_success_and_keeps_the_state(client: Client, leave: str) -> None:
    failed, told, text = await run(client, f"v = 1\nprint('a')\n{leave}\nprint('b')")
    assert (failed, told["status"], told["state"], told["exit_code"]) == (False, "ok", "kept", 0)
    assert told["text"] == "a"
    assert told["reason"] == f"{EXIT_REASON} {EXIT_KEPT}"
    assert EXIT_REASON in text
    assert (await run(client, "v + 1"))[1]["text"] == "2"


@pytest.mark.parametrize(
    ("leave", "code", "value"),
    [
        ("exit(3)", 3, "3"),
        ("import sys; sys.exit(-1)", -1, "-1"),
        ("import sys; sys.exit('words')", 1, "words"),
        ("raise SystemExit(True)", 1, "True"),
    ],
)
async def test_leaving_with_something_else_is_an_error_with_its_code(
    client: Client, leave: str, code: int, value: str
) -> None:
    failed, told, text = await run(client, f"v = 1\n{leave}\nprint('b')")
    assert (failed, told["status"], told["state"], told["exit_code"]) == (
        True,
        "error",
        "kept",
        code,
    )
    assert told["error"] == {"name": "SystemExit", "value": value}
    assert told["reason"] == EXIT_REASON
    assert "Traceback" not in text
    assert text.endswith("; variables are kept]")
    assert (await run(client, "v + 1"))[1]["text"] == "2"


@pytest.mark.parametrize(
    ("die", "said", "code"),
    [
        (
            "import os; os._exit(3)",
            "code 3: something ended the whole process, as os._exit does",
            3,
        ),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV", None),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL", None),
    ],
)
async def test_a_process_that_ends_loses_the_state_and_says_how_and_what_to_do(
    client: Client, die: str, said: str, code: int | None
) -> None:
    failed, told, _ = await run(client, f"print('a', flush=True)\n{die}")
    assert (failed, told["status"], told["state"]) == (True, "died", "lost")
    assert told.get("exit_code") == code
    assert said in told["reason"]
    assert "restart_kernel" in told["next"]


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        ("input('name? ')", INPUT_REASON),
        ("import getpass; getpass.getpass()", GETPASS_REASON),
        ("breakpoint()", DEBUGGER_REASON),
        ("import pdb; pdb.set_trace()", DEBUGGER_REASON),
        ("def f():\n    breakpoint()\n    return 1\nf()", DEBUGGER_REASON),
    ],
)
async def test_what_nobody_can_answer_ends_at_once_with_what_to_do_instead(
    client: Client, ask: str, reason: str
) -> None:
    with anyio.fail_after(20):
        failed, told, _ = await run(client, f"{ask}\nprint('after')")
    assert (failed, told["status"], told["state"]) == (True, "error", "kept")
    assert told["reason"] == reason
    assert "after" not in told["text"].splitlines()
    assert (await run(client, "print('next')"))[1]["text"] == "next"


async def test_a_busy_kernel_says_so_at_once_to_who_completes_or_inspects(client: Client) -> None:
    _, slow, _ = await run(client, "import time; time.sleep(60)", wait=0.5)
    assert slow["status"] == "running"
    for tool in ("complete_code", "inspect_code"):
        with anyio.fail_after(5):
            refused = await client.call_tool(tool, {"code": "tim"})
        assert refused.is_error
        (said,) = [block.text for block in refused.content if block.type == "text"]
        assert slow["execution_id"] in said
        assert "busy" in said
    await client.call_tool("interrupt_kernel", {})
    with anyio.fail_after(WAIT_S):
        await client.call_tool("get_execution", {"execution_id": slow["execution_id"], "wait": 30})
        found = await client.call_tool("complete_code", {"code": "tim"})
    assert "time" in str(found.structured_content)


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("import sys; print('a'); sys.exit(0); print('b')", 0),
        ("exit(7)", 7),
        ("import os; print('a', flush=True); os._exit(9)", 9),
        ("import sys; sys.exit('words')", 1),
    ],
)
def test_the_command_exits_as_its_program_does(tmp_path: Path, code: str, exit_code: int) -> None:
    (tmp_path / "work").mkdir()
    done = sandbox_run(tmp_path / "work", "-c", code)
    assert done.returncode == exit_code, done.stderr
    assert "b" not in done.stdout
    assert "Traceback" not in done.stderr


def test_a_notebook_that_leaves_with_0_ends_there_as_a_success(tmp_path: Path) -> None:
    done, cells = notebook_run(tmp_path, notebook("print(1)", "exit()\nprint(2)", "print(3)"))
    assert done.returncode == 0, done.stderr
    assert [len(cell.outputs) for cell in cells] == [1, 0, 0]
    assert "ends the run as a success" in done.stderr
    assert "2 of 3 code cells were run" in done.stderr
