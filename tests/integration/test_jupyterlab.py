"""A person's own JupyterLab, in a real browser, with a session that an agent works in.

``SANDBOX_TEST_PICTURES=1`` keeps what it looks like for the documentation.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from mcp import Client

from ..support.chromium import Page, browsing
from ..support.environments import python_with
from ..support.served import Served, environment, sandbox

pytestmark = pytest.mark.anyio

PICTURE = Path(__file__).parents[2] / "docs/images/jupyterlab.png"
NOTEBOOK = "orders.ipynb"
TITLE = "# Orders by weekday\nThe agent looks at the numbers; we look on, and write with it."
PLOT = """\
import matplotlib.pyplot as plt

orders = {"Mon": 42, "Tue": 61, "Wed": 55, "Thu": 78, "Fri": 96}
plt.figure(figsize=(6, 2))
plt.bar(orders.keys(), orders.values(), color="#4a7fb5")
plt.show()
print("the busiest day:", max(orders, key=orders.get))
"""
OUTPUTS = "[...document.querySelectorAll('.jp-OutputArea-output')].map(e => e.innerText).join()"
READ_ONLY = (
    "document.querySelector('.jp-NotebookPanel-toolbar')?.innerText.match(/.*read-only/)?.[0]"
)
ASKED = "document.querySelectorAll('.jp-Dialog, .Toastify__toast').length"
"""What JupyterLab asks or says in the way of whoever looks at a notebook."""
SOURCES = "[...document.querySelectorAll('.jp-CodeCell .cm-content')].map(e => e.innerText).join()"


@asynccontextmanager
async def lab(served: Served, *words: str) -> AsyncIterator[str]:
    """`sandbox lab`, and the address that it prints."""
    python = await anyio.to_thread.run_sync(python_with, "jupyterlab")
    command = [sys.executable, "-m", "sandbox", "lab", *words, "--jupyter", str(python.parent)]
    process = await anyio.open_process(
        command, env=environment(served.state), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    said = ""
    try:
        with anyio.fail_after(90):
            assert process.stderr is not None
            while not (found := re.search(r"http://\S+(?=\s)", said)):
                said += (await process.stderr.receive()).decode()
        yield found[0]
    finally:
        process.terminate()
        with anyio.move_on_after(15, shield=True):
            await process.wait()
        assert process.returncode == 0, said
        await process.aclose()


@asynccontextmanager
async def using(served: Served) -> AsyncIterator[tuple[Client, str]]:
    """An agent that uses the notebook, and the id of its session."""
    async with served.client() as agent:
        opened = await agent.call_tool("open_session", {"policy": "datascience"})
        used = {"notebook_name": "n", "notebook_path": NOTEBOOK, "mode": "create"}
        assert not (await agent.call_tool("use_notebook", used)).is_error
        yield agent, (opened.structured_content or {})["session_id"]


@asynccontextmanager
async def shown_in_lab(served: Served, *words: str) -> AsyncIterator[tuple[str, Page]]:
    """The address that `sandbox lab` prints, and a page that shows a notebook there."""
    async with lab(served, *words) as address, browsing() as page:
        await page.open(address)
        await page.until("document.querySelector('.jp-Notebook') && 1", within_s=90)
        yield address, page


async def shown(page: Page, text: str, where: str = SOURCES) -> None:
    """Wait until a page shows text."""
    await page.until(f"{where}.includes({text!r})", within_s=60)


async def read_until(agent: Any, index: int, text: str) -> None:
    """Wait until an agent reads text in a cell."""
    with anyio.fail_after(30):
        while True:
            read = await agent.call_tool("read_cell", {"cell_index": index})
            if text in str(read.content):
                return
            await anyio.sleep(0.1)


async def test_a_page_shows_what_an_agent_does_and_the_agent_reads_what_is_typed(
    clean: Served,
) -> None:
    async with (
        using(clean) as (agent, session_id),
        shown_in_lab(clean, session_id, NOTEBOOK) as (address, page),
    ):
        await page.value("window.isStillThere = true")
        cell = {"cell_index": 0, "cell_type": "markdown", "cell_source": TITLE}
        assert not (await agent.call_tool("insert_cell", cell)).is_error
        ran = await agent.call_tool(
            "insert_execute_code_cell", {"cell_index": 1, "cell_source": PLOT}
        )
        assert not ran.is_error, ran
        await shown(page, "the busiest day")
        await shown(page, "the busiest day: Fri", OUTPUTS)
        await page.until("document.querySelector('.jp-OutputArea-output img')?.complete")
        cell = {"cell_index": 2, "cell_type": "code", "cell_source": "# what about "}
        assert not (await agent.call_tool("insert_cell", cell)).is_error
        await shown(page, "# what about")
        await page.click("[...document.querySelectorAll('.jp-CodeCell .cm-line')].at(-1)")
        await page.press("End")
        await page.type("Saturday?")
        await shown(page, "# what about Saturday?")
        await read_until(agent, 2, "# what about Saturday?")
        await page.until("!document.querySelector('.lm-TabBar-tab.jp-mod-dirty')")  # it is saved
        assert await page.value("window.isStillThere")  # it was never loaded anew
        await page.value("document.querySelector('.jp-MarkdownCell').scrollIntoView()")
        picture = await page.picture()
        assert len(picture) < 200_000
        if os.environ.get("SANDBOX_TEST_PICTURES"):
            PICTURE.parent.mkdir(exist_ok=True)
            PICTURE.write_bytes(picture)
        await only_the_session_is_reached(address)


async def only_the_session_is_reached(address: str) -> None:
    """Of the machine that the JupyterLab is on, its pages are served and nothing else."""
    base = address.split("/lab/")[0]
    async with httpx.AsyncClient(trust_env=False) as stranger:
        assert (await stranger.get(f"{base}/lab")).status_code == 403
        assert (await stranger.get(f"{base}/api/contents")).status_code == 403
    async with httpx.AsyncClient(trust_env=False, follow_redirects=True) as person:
        assert (await person.get(address)).status_code == 200
        listing = (await person.get(f"{base}/api/contents")).json()
        assert NOTEBOOK in [each["name"] for each in listing["content"]]
        for method, path in [
            ("POST", "/lab/api/extensions"),
            ("POST", "/lab/api/build"),
            ("GET", "/lab/%2e%2e/api/terminals"),
            ("GET", "/tree"),
            ("GET", "/terminals/websocket/1"),
        ]:
            answer = await person.request(method, f"{base}{path}")
            assert answer.status_code in (404, 405), (method, path)
        foreign = await person.get(f"{base}/api/me", headers={"Origin": "http://evil.example"})
        assert foreign.status_code == 403


async def shared(served: Served, session_id: str, *words: str) -> str:
    """The address with which `sandbox notebook share` shares the notebook."""
    words = ("notebook", "share", session_id, NOTEBOOK, "--json", *words)
    done = await anyio.to_thread.run_sync(sandbox, served.state, *words)
    assert done.returncode == 0, done.stderr
    url: str = json.loads(done.stdout)["url"]
    return url


@pytest.mark.parametrize("edit", [False, True])
async def test_a_guest_sees_the_shared_notebook_live_and_writes_in_it_only_where_they_may(
    clean: Served, edit: bool
) -> None:
    async with using(clean) as (agent, session_id):

        async def insert(index: int, source: str) -> None:
            cell = {"cell_index": index, "cell_type": "code", "cell_source": source}
            assert not (await agent.call_tool("insert_cell", cell)).is_error

        await insert(0, "# before ")
        url = await shared(clean, session_id, *(["--edit"] if edit else []))
        async with shown_in_lab(clean, url) as (_, page):
            await shown(page, "# before")
            ran = {"cell_index": 1, "cell_source": "print('ran: ' + str(6 * 7))"}
            assert not (await agent.call_tool("insert_execute_code_cell", ran)).is_error
            await shown(page, "ran: 42", OUTPUTS)
            await page.click("[...document.querySelectorAll('.jp-CodeCell .cm-line')][0]")
            await page.press("End")
            await page.type("by the guest")
            await shown(page, "# before by the guest")
            if edit:
                await read_until(agent, 0, "# before by the guest")
                await page.until("!document.querySelector('.jp-mod-dirty')")
                assert await page.value(READ_ONLY) is None
            else:  # what follows comes to the page after all that it has sent
                assert "read-only" in await page.value(READ_ONLY)
                await insert(2, "# after")
                await shown(page, "# after")
                kept = await page.value(f"fetch('/api/contents/{NOTEBOOK}').then(a => a.text())")
                assert "# after" in kept
                assert "by the guest" not in kept
                await read_until(agent, 0, "# before")
                read = await agent.call_tool("read_cell", {"cell_index": 0})
                assert "by the guest" not in str(read.content)
            assert await page.value(ASKED) == 0
            assert await page.value("fetch('/api/terminals').then(a => a.status)") == 403
