"""A headless Chromium that a test drives over its DevTools protocol.

It is the distribution's package: where it is missing and this is root on a Debian, it is installed;
elsewhere the test fails and says so.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import anyio
import anyio.to_thread

from .wsclient import TEXT, WsClient, frame

PROGRAM = "chromium"
INSTALL_TIMEOUT_S = 600
START_S = 60
CALL_S = 30
LOCK = Path(tempfile.gettempdir()) / "sandbox-tests-chromium.lock"


def chromium() -> str:
    """The program, installed if need be; several processes may ask at once.

    Raises:
        AssertionError: It is not there and cannot be installed.
    """
    if found := shutil.which(PROGRAM):
        return found
    with LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shutil.which(PROGRAM):
            able = shutil.which("apt-get") and os.geteuid() == 0
            assert able, "Chromium is needed (Debian: `sudo apt-get install chromium`)."
            for words in (["update"], ["install", "--yes", "--no-install-recommends", PROGRAM]):
                done = subprocess.run(
                    ["apt-get", "--quiet=2", *words],
                    env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=INSTALL_TIMEOUT_S,
                    check=False,
                )
                assert done.returncode == 0, done.stdout + done.stderr
    found = shutil.which(PROGRAM)
    assert found, "apt-get has installed no Chromium"
    return found


class Page:
    """The page of a browser; what its console says is kept in ``said``."""

    def __init__(self, client: WsClient) -> None:
        self._client = client
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.said: list[str] = []

    async def listen(self) -> None:
        """Take what the browser says, until it goes."""
        while True:
            opcode, data = await self._client.heard(patience_s=3600)
            if opcode != TEXT:
                return
            told = json.loads(data)
            answer = self._answers.pop(told.get("id", 0), None)
            if answer is not None and not answer.done():
                answer.set_result(told)
            elif told.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
                self.said.append(json.dumps(told["params"])[:2000])

    async def call(self, method: str, **params: Any) -> Any:
        """Have the browser do something, and return what it answers."""
        number = next(self._numbers)
        self._answers[number] = answer = asyncio.get_running_loop().create_future()
        asked = {"id": number, "method": method, "params": params}
        self._client.say(frame(TEXT, json.dumps(asked).encode()))
        with anyio.fail_after(CALL_S):
            told = await answer
        assert "error" not in told, f"{method}: {told['error']}"
        return told["result"]

    async def open(self, url: str) -> None:
        """Go to an address."""
        await self.call("Page.navigate", url=url)

    async def value(self, expression: str) -> Any:
        """What JavaScript comes to, awaited if it is a promise."""
        found = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def until(self, expression: str, within_s: float = 30) -> Any:
        """Wait until JavaScript comes to something that is true, and return that."""
        try:
            with anyio.fail_after(within_s):
                while True:
                    with suppress(AssertionError):  # a page that is not yet what it will be
                        if found := await self.value(expression):
                            return found
                    await anyio.sleep(0.05)
        except TimeoutError as exc:
            shown = await self.value("document.body.innerText.slice(0, 3000)")
            told = "\n".join(self.said[-10:])
            kept = Path(tempfile.gettempdir()) / "chromium-failure.png"
            kept.write_bytes(await self.picture())
            raise AssertionError(f"never: {expression}\n{shown}\n{told}\nsee {kept}") from exc

    async def click(self, element: str) -> None:
        """Click in the middle of what JavaScript finds."""
        box = await self.until(
            f"(() => {{const e = {element}; if (!e) return null;"
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            "return r.width ? [r.x + r.width / 2, r.y + r.height / 2] : null})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=box[0],
                y=box[1],
                button="left",
                clickCount=1,
            )

    async def press(self, key: str) -> None:
        """Press a key that is none of a text, such as End."""
        codes = {"End": 35, "Home": 36, "Enter": 13}
        for kind in ("keyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=codes[key],
            )

    async def type(self, text: str) -> None:
        """Type text where the page's focus is."""
        for letter in text:
            await self.call("Input.dispatchKeyEvent", type="keyDown", text=letter)
            await self.call("Input.dispatchKeyEvent", type="keyUp")

    async def picture(self) -> bytes:
        """What it looks like, as PNG."""
        found = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(found["data"])


@asynccontextmanager
async def browsing(width: int = 1280, height: int = 900) -> AsyncIterator[Page]:
    """A page of a browser of its own, until the block ends."""
    program = await anyio.to_thread.run_sync(chromium)
    profile = Path(tempfile.mkdtemp(prefix="chromium-"))
    words = [
        program,
        "--headless=new",
        "--no-sandbox",  # it shows our own pages, and tests may be root
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--hide-scrollbars",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        f"--window-size={width},{height}",
        "about:blank",
    ]
    try:
        process = await anyio.open_process(
            words, stdin=subprocess.DEVNULL, stdout=None, stderr=subprocess.DEVNULL
        )
        try:
            port = await _port(profile)
            path = await anyio.to_thread.run_sync(_page_path, port)
            client = await WsClient.to(port, path)
            assert client.answer.status == 101
            page = Page(client)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(page.listen)
                for method in ("Page.enable", "Runtime.enable"):
                    await page.call(method)
                yield page
                tasks.cancel_scope.cancel()
            client.close()
        finally:
            with anyio.CancelScope(shield=True):
                process.terminate()
                with anyio.move_on_after(5):
                    await process.wait()
                if process.returncode is None:
                    process.kill()
                await process.aclose()
    finally:
        shutil.rmtree(profile, ignore_errors=True)


async def _port(profile: Path) -> int:
    with anyio.fail_after(START_S):
        while True:
            with suppress(FileNotFoundError, IndexError, ValueError):
                return int((profile / "DevToolsActivePort").read_text().split()[0])
            await anyio.sleep(0.05)


def _page_path(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=CALL_S) as answer:
        pages = [each for each in json.load(answer) if each["type"] == "page"]
    return "/" + pages[0]["webSocketDebuggerUrl"].split("/", 3)[3]
