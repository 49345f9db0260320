"""Failures in real sandboxes name their cause and what to do about it, in text and structure."""

from __future__ import annotations

import pytest

from ..support.served import Served

pytestmark = pytest.mark.anyio

SHARED = """\
from multiprocessing import shared_memory
shared = shared_memory.SharedMemory(create=True, size=100 * 2**20)
shared.buf[:] = b"x" * len(shared.buf)"""
TMP = """\
with open("/tmp/large", "wb") as file:
    for _ in range(200):
        file.write(b"x" * 2**20)"""
SPAWN = """\
import multiprocessing
def own(x): return x
with multiprocessing.get_context("spawn").Pool(1) as pool:
    pool.map(own, [1])"""
THREADS = """\
import threading
wait = threading.Event()
threads = [threading.Thread(target=wait.wait, args=(60,)) for _ in range(400)]
try:
    for thread in threads: thread.start()
finally:
    wait.set()"""


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        (SHARED, "died", ("SIGBUS", "/dev/shm", "64MiB")),
        (TMP, "error", ("/tmp is full", "128MiB")),
        (THREADS, "error", ("256 are the most",)),
        (SPAWN, "error", ("'own' is defined in a cell", "%%writefile")),
        ("import nunpy", "error", ("did you mean 'numpy'?",)),
        ("open('/etc/x', 'w')", "error", ("below /workspace",)),
        ("raise ExceptionGroup('g', [ValueError('inner one')])", "error", ("inner one",)),
        ("def f(n): return f(n + 1)\nf(0)", "error", ("calls itself",)),
    ],
)
async def test_a_failure_names_its_cause_and_what_to_do(
    served: Served, code: str, status: str, words: tuple[str, ...]
) -> None:
    async with served.client() as client:
        opened = await client.call_tool("open_session", {"policy": "offline", "reuse": False})
        assert opened.structured_content is not None, opened.content
        here = {"session_id": opened.structured_content["session_id"]}
        told = await client.call_tool("execute_code", {"code": code, "timeout": 60, **here})
        await client.call_tool("close_session", here)
    assert told.structured_content is not None
    assert told.structured_content["status"] == status
    content = "\n".join(getattr(block, "text", "") for block in told.content)
    for word in words:
        assert word in content
        assert word in str(told.structured_content) or word in told.structured_content["text"]


async def test_a_figure_is_shown_under_a_backend_without_a_display(served: Served) -> None:
    code = "import matplotlib; matplotlib.use('Agg')\nimport matplotlib.pyplot as plt\n"
    async with served.client() as client:
        opened = await client.call_tool("open_session", {"policy": "datascience"})
        assert opened.structured_content is not None, opened.content
        here = {"session_id": opened.structured_content["session_id"]}
        shown = await client.call_tool(
            "execute_code", {"code": f"{code}plt.plot([1, 2]); plt.show()", **here}
        )
    assert [block.type for block in shown.content].count("image") == 1
