"""Real kernels of a real supervisor, as processes of this host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from sandbox.kernels.kernels import Kernels
from sandbox.kernels.models import ExecutionResult
from sandbox.policy.models import Limits

from ...support.machines import Machine, MemoryJournal, host_machine
from ...support.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    async with host_machine(tmp_path) as machine:
        yield machine


@pytest.fixture
async def kernels(machine: Machine) -> AsyncIterator[Kernels]:
    kernels = Kernels("s-real", Limits(), MemoryJournal(), grace_s=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kernels.run)
        await kernels.attach(await machine.connect())
        yield kernels
        tasks.cancel_scope.cancel()


async def run(kernels: Kernels, code: str, timeout_s: float = 60) -> ExecutionResult:
    execution = await kernels.execute(code, timeout_s=timeout_s)
    with anyio.fail_after(90):
        return await execution.wait()


def text_of(result: ExecutionResult) -> str:
    return "".join(output.get("text", "") for output in result.outputs)


def data_of(result: ExecutionResult) -> list[dict[str, Any]]:
    return [output["data"] for output in result.outputs if "data" in output]


async def test_what_cells_show_is_what_ipython_shows(kernels: Kernels) -> None:
    result = await run(kernels, "import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7")
    error = await run(kernels, "1 / 0")
    rich = await run(
        kernels,
        "from IPython.display import HTML, Image, clear_output, display\n"
        "shown = display(HTML('<b>1</b>'), display_id=True)\n"
        "shown.update(HTML('<b>2</b>'))\n"
        "display(Image(data=b'\\x89PNG\\r\\n\\x1a\\n' + bytes(50), format='png'))",
    )
    cleared = await run(kernels, "print('gone')\nclear_output(wait=True)\nprint('kept')")
    helped = await run(kernels, "len?")

    assert result.status == "ok"
    assert text_of(result) == "out\nerr\n"
    assert data_of(result) == [{"text/plain": "42"}]
    assert error.error is not None
    assert error.error.name == "ZeroDivisionError"
    assert "\x1b" not in error.error.traceback
    assert data_of(rich)[0]["text/html"] == "<b>2</b>"
    assert "image/png" in data_of(rich)[1]
    assert text_of(cleared) == "kept\n"
    assert "Return the number of items" in data_of(helped)[0]["text/plain"]


async def test_names_are_completed_and_inspected(kernels: Kernels) -> None:
    await run(kernels, "number_of_things = 42")
    found = await kernels.complete("print(number_of_th")
    about = await kernels.inspect("number_of_things")

    assert "number_of_things" in found.matches
    assert (found.cursor_start, found.cursor_end) == (6, 18)
    assert about.found
    assert "42" in about.text


async def test_cells_end_as_what_they_were(kernels: Kernels) -> None:
    await run(kernels, "x = 1\nimport os, signal, threading, time")
    late = await run(kernels, "time.sleep(60)", timeout_s=0.5)
    kept = await run(kernels, "print(x)")
    deaf = await run(
        kernels,
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('deaf', flush=True)\n"
        "while True: time.sleep(60)",
        timeout_s=0.5,
    )
    fresh = await run(kernels, "x")
    asked = await run(kernels, "input('name? ')")
    died = await run(kernels, "import os\nprint('last', flush=True)\nos._exit(7)")

    assert (late.status, late.state) == ("timeout", "kept")
    assert text_of(kept) == "1\n"
    assert (deaf.status, deaf.state) == ("timeout", "restarted")
    assert fresh.error is not None
    assert fresh.error.name == "NameError"
    assert asked.status == "error"
    assert "input" in (asked.reason or "")
    assert (died.status, died.state) == ("died", "lost")
    assert "code 7" in (died.reason or "")
    assert (await kernels.restart()).state == "idle"


async def test_an_interrupt_right_after_the_start_is_heard(kernels: Kernels) -> None:
    await run(kernels, "import time")
    for _ in range(5):
        execution = await kernels.execute("time.sleep(60)")
        await execution.cancel()
        with anyio.fail_after(20):
            assert (await execution.wait()).status == "interrupted"


async def test_an_interrupt_at_any_moment_ends_the_cell_and_nothing_else(kernels: Kernels) -> None:
    await run(kernels, "x = 41")
    for step in range(40):
        execution = await kernels.execute("1 + 1")
        await anyio.sleep(step % 20 / 2000)
        await execution.cancel()
        with anyio.fail_after(20):
            assert (await execution.wait()).status in {"ok", "interrupted"}, step
    assert data_of(await run(kernels, "x + 1")) == [{"text/plain": "42"}]


async def test_the_next_controller_finds_all_that_a_cell_wrote(machine: Machine) -> None:
    journal = MemoryJournal()
    code = "import time\nfor n in range(60):\n    print(n, flush=True)\n    time.sleep(0.03)"
    async with anyio.create_task_group() as tasks:
        kernels = Kernels("s-real", Limits(), journal)
        tasks.start_soon(kernels.run)
        link = await machine.connect()
        await kernels.attach(link)
        await run(kernels, "x = 41")
        execution = await kernels.execute(code)
        await until(lambda: bool(journal.progressed), 30)
        journal = journal.copy()
        tasks.cancel_scope.cancel()
    await link.aclose()
    async with anyio.create_task_group() as tasks:
        kernels = Kernels("s-real", Limits(), journal)
        tasks.start_soon(kernels.run)
        await kernels.attach(await machine.connect())
        with anyio.fail_after(60):
            result = await kernels.execution(execution.execution_id).wait()
        after = await run(kernels, "x + 1")
        tasks.cancel_scope.cancel()

    assert result.status == "ok"
    assert text_of(result) == "".join(f"{n}\n" for n in range(60))
    assert data_of(after) == [{"text/plain": "42"}]


async def test_a_flood_of_a_hundred_megabytes_passes_by(kernels: Kernels) -> None:
    result = await run(kernels, "text = 'x' * 1_000_000\nfor _ in range(100): print(text)")

    assert result.status == "ok"
    assert result.truncated_bytes > 99_000_000
    assert len(text_of(result)) <= Limits().output_bytes


async def test_an_error_too_large_to_be_sent_is_still_an_error(kernels: Kernels) -> None:
    result = await run(kernels, "raise ValueError('x' * 9_000_000)")
    after = await run(kernels, "6 * 7")

    assert (result.status, result.state) == ("error", "kept")
    assert result.error is not None
    assert "more than can be sent" in result.error.value
    assert result.truncated_bytes > 9_000_000
    assert data_of(after) == [{"text/plain": "42"}]
