"""The Python kernel, forked from a real supervisor: code behaves as on anybody's machine."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from sandbox.link.link import Link

from ...support.supervisorprocess import Cells

pytestmark = pytest.mark.anyio

LIMIT_S = 30


async def told(cells: Cells, code: str) -> tuple[list[tuple[str, dict[str, Any]]], dict[str, Any]]:
    """The outputs of a cell, without what every cell has, and its reply."""
    with anyio.fail_after(LIMIT_S):
        outputs, reply = await cells.outputs(await cells.submit(code))
    return [each for each in outputs if each[0] not in ("status", "execute_input")], reply


async def text(cells: Cells, code: str, name: str = "stdout") -> str:
    """What a cell prints."""
    outputs, _ = await told(cells, code)
    return "".join(
        content["text"] for kind, content in outputs if kind == "stream" and content["name"] == name
    )


def merged(outputs: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, str]]:
    """Streams in order, those of one name after each other put together."""
    found: list[tuple[str, str]] = []
    for kind, content in outputs:
        if kind != "stream":
            found.append((kind, ""))
        elif found and found[-1][0] == content["name"]:
            found[-1] = (content["name"], found[-1][1] + content["text"])
        else:
            found.append((content["name"], content["text"]))
    return found


# --- order


async def test_a_value_comes_before_what_is_said_after_it(cells: Cells) -> None:
    hook = (
        "def say(_result):\n    print('said')\n    display(2)\n"
        "get_ipython().events.register('post_run_cell', say)"
    )
    await told(cells, hook)
    outputs, _ = await told(cells, "print('first')\n1")
    kinds = [("stdout", "first\n"), ("execute_result", ""), ("stdout", "said\n")]
    assert merged(outputs) == [*kinds, ("display_data", "")]


async def test_a_value_that_is_shown_before_the_end_comes_at_once(cells: Cells, link: Link) -> None:
    with anyio.fail_after(LIMIT_S):
        msg_id = await cells.submit("import sys, time\nsys.displayhook(1); time.sleep(1000)")
        while b'"execute_result"' not in b"".join((await cells.next())[1][1:2]):
            pass
        await link.call("kernel.interrupt", kernel_id=cells.kernel_id)
        await cells.outputs(msg_id)


async def test_stdout_stderr_and_displays_keep_their_order(cells: Cells) -> None:
    code = (
        "import sys\n"
        "for i in range(50):\n"
        "    print('out', i)\n"
        "    print('err', i, file=sys.stderr)\n"
        "    display(i)\n"
    )
    outputs, _ = await told(cells, code)
    expected: list[tuple[str, str]] = []
    for i in range(50):
        expected += [("stdout", f"out {i}\n"), ("stderr", f"err {i}\n"), ("display_data", "")]
    assert merged(outputs) == expected


async def test_what_children_and_descriptors_write_stands_where_it_was_written(
    cells: Cells,
) -> None:
    code = (
        "import os, subprocess\n"
        "for i in range(20):\n"
        "    print('a', i, end=' ')\n"
        "    os.write(1, b'b ')\n"
        "    subprocess.run(['echo', 'c'])\n"
        "    display(i)\n"
    )
    outputs, _ = await told(cells, code)
    lines = [text for name, text in merged(outputs) if name == "stdout"]
    # A line that has no end yet goes out with what is written to the stream next.
    assert lines == [f"b c\na {i} " for i in range(20)]


async def test_the_last_line_needs_no_end(cells: Cells) -> None:
    assert await text(cells, "print('no end', end='')") == "no end"


async def test_what_waits_for_its_end_is_sent_when_it_waits_long(cells: Cells) -> None:
    code = "import time\nfor _ in range(3):\n    print('.', end='')\n    time.sleep(0.15)\n"
    outputs, _ = await told(cells, code)
    assert [content["text"] for kind, content in outputs if kind == "stream"] == [".", ".", "."]


async def test_a_child_that_writes_for_ever_holds_up_no_message(cells: Cells) -> None:
    code = (
        "import subprocess\n"
        "child = subprocess.Popen(['sh', '-c', 'while :; do echo y; done'])\n"
        "for i in range(3):\n"
        "    display(i)\n"
        "child.kill(); child.wait()\n"
    )
    outputs, reply = await told(cells, code)
    assert [kind for kind, _ in outputs].count("display_data") == 3
    assert reply["status"] == "ok"


# --- the streams


async def test_stdout_is_a_text_stream_of_a_process(cells: Cells) -> None:
    code = (
        "import io, json, sys\n"
        "sys.stdout.reconfigure(encoding='utf-8')\n"
        "sys.stdout.buffer.write('ü\\n'.encode()); sys.stdout.buffer.flush()\n"
        "print(json.dumps([sys.stdout.fileno(), sys.stderr.fileno(), sys.stdout.isatty(),\n"
        "    sys.stdout.name, sys.stdout.mode, sys.stdout.encoding, sys.stdout is sys.__stdout__,\n"
        "    isinstance(sys.stdout, io.TextIOWrapper), sys.stdin.read()]))\n"
    )
    first, second = (await text(cells, code)).splitlines()
    assert first == "ü"
    found = json.loads(second)
    assert found == [1, 2, False, "<stdout>", "w", "utf-8", True, True, ""]


@pytest.mark.parametrize(
    "damage",
    [
        "sys.stdout = None",
        "sys.stderr = None",
        "sys.stdout = sys.stderr = object()",
        "sys.stdout.close()",
        "sys.stdout.detach()",
        "os.close(1); os.close(2)",
        "os.dup2(os.open(os.devnull, os.O_WRONLY), 1)",
        "del sys.stdout",
        "sys.stdout = io.StringIO(); sys.stdout.close()",
    ],
)
async def test_a_cell_can_lose_its_own_output_and_no_other_cell_s(
    cells: Cells, damage: str
) -> None:
    _, reply = await told(cells, f"import io, os, sys\n{damage}\n5")
    assert reply["status"] == "ok"
    assert await text(cells, "import sys; print('out')") == "out\n"
    assert await text(cells, "print('err', file=sys.stderr)", "stderr") == "err\n"


async def test_a_stream_of_the_user_s_own_stays(cells: Cells) -> None:
    await told(cells, "import io, sys; mine = sys.stdout = io.StringIO()\nprint('kept')")
    await told(cells, "print('too'); sys.stdout = sys.__stdout__")
    assert await text(cells, "print(repr(mine.getvalue()))") == "'kept\\ntoo\\n'\n"


async def test_a_character_that_cannot_be_written_is_lost_alone(cells: Cells) -> None:
    assert await text(cells, "print('a\\ud800b')") == "a\\ud800b\n"
    assert await text(cells, "import os; os.write(1, b'a\\xffb\\n')") == "a\ufffdb\n"
    outputs, _ = await told(cells, "raise ValueError('a\\ud800b')")
    assert outputs[0][1]["evalue"] == "a\\ud800b"


# --- whose output it is


async def parent_of(cells: Cells, wanted: str) -> str:
    """The request that a printed text belongs to."""
    with anyio.fail_after(LIMIT_S):
        while True:
            _, parts = await cells.next()
            if len(parts) > 4 and wanted.encode() in parts[4] and b'"text"' in parts[4]:
                return str(json.loads(parts[2])["msg_id"])


@pytest.mark.parametrize(
    "code",
    [
        "import threading, time\nthreading.Thread(target=lambda: (time.sleep(.3), print('LATE')))"
        ".start()",
        "import asyncio\nasync def late():\n    await asyncio.sleep(.3)\n    print('LATE')\n"
        "task = asyncio.create_task(late())",
        "import subprocess\nchild = subprocess.Popen('sleep .3; echo LATE', shell=True)",
    ],
    ids=["thread", "task", "child"],
)
async def test_late_output_belongs_to_the_cell_that_started_its_writer(
    cells: Cells, code: str
) -> None:
    first = await cells.submit(code)
    with anyio.fail_after(LIMIT_S):
        await cells.outputs(first)
    await cells.submit("import time; print('mine'); await __import__('asyncio').sleep(.6)")
    assert await parent_of(cells, "LATE") == first


# --- how a cell ends


@pytest.mark.parametrize("ending", ["exit()", "quit()", "exit", "sys.exit(0)", "sys.exit()"])
async def test_a_cell_that_ends_itself_with_0_is_ok_and_the_state_stays(
    cells: Cells, ending: str
) -> None:
    outputs, reply = await told(cells, f"import sys; v = 7; print('a')\n{ending}\nprint('b')")
    if ending == "exit":  # of which only a cell of its own is a call
        outputs, reply = await told(cells, ending)
        assert outputs == []
    else:
        assert merged(outputs) == [("stdout", "a\n")]
    assert reply["status"] == "ok"
    assert await text(cells, "print(v)") == "7\n"


@pytest.mark.parametrize(
    ("ending", "value"), [("sys.exit(3)", "3"), ("exit(3)", "3"), ("sys.exit('words')", "words")]
)
async def test_a_cell_that_ends_itself_otherwise_has_failed(
    cells: Cells, ending: str, value: str
) -> None:
    outputs, reply = await told(cells, f"import sys; v = 7\n{ending}\nprint('b')")
    content = {"ename": "SystemExit", "evalue": value, "traceback": [f"SystemExit: {value}"]}
    assert outputs == [("error", content)]
    assert (reply["status"], reply["ename"], reply["evalue"]) == ("error", "SystemExit", value)
    assert await text(cells, "print(v)") == "7\n"


# --- the event loop


async def test_the_loop_lives_between_cells_and_asyncio_run_works(cells: Cells) -> None:
    await told(cells, "import asyncio\nasync def f():\n    await asyncio.sleep(.01)\n    return 7")
    assert await text(cells, "print(asyncio.run(f()))") == "7\n"
    assert await text(cells, "print(asyncio.get_event_loop().run_until_complete(f()))") == "7\n"
    await told(cells, "task = asyncio.create_task(f())")
    assert await text(cells, "await asyncio.sleep(.1); print(task.result())") == "7\n"
    assert await text(cells, "print(asyncio.Runner().run(f()), await f())") == ""
    _, reply = await told(cells, "await f(); asyncio.run(f())")
    assert (reply["ename"], "await" in reply["evalue"]) == ("RuntimeError", True)


async def test_a_task_that_raises_ends_no_kernel(cells: Cells) -> None:
    code = (
        "import asyncio\n"
        "async def bad(error):\n"
        "    raise error\n"
        "tasks = [asyncio.create_task(bad(e)) for e in (SystemExit(1), KeyboardInterrupt())]\n"
    )
    await told(cells, code)
    await told(cells, "await asyncio.sleep(.1)")
    assert await text(cells, "print('alive')") == "alive\n"


@pytest.mark.parametrize(
    "waiting",
    ["import time; time.sleep(60)", "await asyncio.sleep(60)", "await f(); time.sleep(60)"],
)
async def test_an_interrupt_ends_the_cell_and_leaves_the_tasks_alone(
    cells: Cells, link: Link, waiting: str
) -> None:
    await told(
        cells,
        "import asyncio, time\nasync def f(): pass\n"
        "async def go():\n    await asyncio.sleep(.5)\n    return 'done'\n"
        "task = asyncio.create_task(go())",
    )
    running = await cells.submit(f"print('runs')\n{waiting}")
    assert await parent_of(cells, "runs") == running
    with anyio.fail_after(LIMIT_S):
        await link.call("kernel.interrupt", kernel_id=cells.kernel_id)
        _, reply = await cells.outputs(running)
    assert reply["status"] == "error"
    assert reply["ename"] in ("KeyboardInterrupt", "CancelledError")
    assert await text(cells, "print(await task)") == "done\n"


# --- it is one thread, and what it says is hostile


async def test_the_kernel_has_one_thread(cells: Cells) -> None:
    code = "import os; print(len(os.listdir('/proc/self/task')))"
    assert await text(cells, code) == "1\n"


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.write(3, b'\\0\\0\\0\\4junk')",
        "import os\nos.write(3, b'\\xff\\xff\\xff\\xff')\nos.write(3, bytes(70000))",
        "import os\nos.close(3)",
        "import os\nos.dup2(os.open('/dev/null', os.O_RDWR), 3)",
    ],
)
async def test_a_kernel_that_breaks_its_connection_is_ended_and_another_can_be_started(
    cells: Cells, link: Link, code: str
) -> None:
    with anyio.fail_after(LIMIT_S):
        await cells.submit(code + "\nimport time; time.sleep(60)")
        if "70000" not in code:  # of which the rest of a frame could still come
            await cells.event("exited")
        await link.call("kernel.restart", kernel_id=cells.kernel_id)
    assert await text(cells, "print('again')") == "again\n"


async def test_a_kernel_without_descriptors_left_shows_what_its_cells_print(cells: Cells) -> None:
    """Also a cell that should get new pipes, as its forerunner has started processes."""
    use_up = (
        "import os, subprocess\n"
        "subprocess.run(['true'])\n"
        "kept = []\n"
        "try:\n"
        "    while True: kept.append(open('/dev/null'))\n"
        "except OSError as exc: print(exc.errno)\n"
    )
    assert await text(cells, use_up) == "24\n"
    for _ in range(2):
        assert await text(cells, "print(len(kept) > 50)") == "True\n"
    assert await text(cells, "kept.clear(); subprocess.run(['echo', 'child']); print('again')") == (
        "child\nagain\n"
    )
    assert await text(cells, "print('and on')") == "and on\n"
