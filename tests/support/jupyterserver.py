"""A real Jupyter Server with the package installed from a wheel, in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx2
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from .environments import python_with

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-for-tests"
START_S = 60
COMMAND_S = 120
_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/")


@dataclass(frozen=True)
class Installed:
    """An environment in which the package, Jupyter Server and its collaboration are."""

    prefix: Path
    home: Path

    @property
    def env(self) -> dict[str, str]:
        """The variables that its programs see."""
        beside = python_with("jupyterextension").parents[1]
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
        return {
            **kept,
            "JUPYTER_CONFIG_DIR": str(self.home / "config"),
            "JUPYTER_DATA_DIR": str(self.home / "data"),
            "JUPYTER_RUNTIME_DIR": str(self.home / "runtime"),
            "JUPYTER_CONFIG_PATH": str(beside / "etc/jupyter"),
            "JUPYTER_PATH": str(beside / "share/jupyter"),
            "SANDBOX_STATE_DIR": str(self.home / "state"),
            "PYTHONWARNINGS": "ignore",
        }

    def jupyter(self, *words: str) -> str:
        """Run ``jupyter server …`` to its end and return what it says."""
        return self._said("jupyter_server", *words)

    def sandbox(self, *words: str) -> str:
        """Run ``sandbox …`` to its end and return what it says."""
        return self._said("sandbox", *words)

    def _said(self, module: str, *words: str) -> str:
        done = subprocess.run(
            [str(self.prefix / "bin/python"), "-m", module, *words],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    url: str
    root: Path
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def mcp_url(self) -> str:
        """Where its tools are."""
        return f"{self.url}mcp/v1"


def install(folder: Path) -> Installed:
    """Build the wheel of this tree and install it where the locked packages can be imported."""
    wheels = folder / "wheels"
    build = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet")
    _run(*build, "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(ROOT))
    beside = python_with("jupyterextension")
    prefix = folder / "prefix"
    _run(str(beside), "-m", "venv", "--without-pip", str(prefix))
    (packages,) = (prefix / "lib").glob("python3*/site-packages")
    (known,) = (beside.parents[1] / "lib").glob("python3*/site-packages")
    (packages / "beside.pth").write_text(f"{known}\n")
    pip = (str(beside), "-m", "pip", "--disable-pip-version-check", "--python", str(prefix))
    (wheel,) = wheels.glob("sandbox-*.whl")
    _run(*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    home = folder / "home"
    for name in ("config", "data", "runtime"):
        (home / name).mkdir(parents=True)
    return Installed(prefix, home)


@contextmanager
def running(
    installed: Installed, folder: Path, *options: str, env: Mapping[str, str] | None = None
) -> Generator[Running]:
    """A Jupyter Server over an empty folder, until the block ends."""
    root, log = folder / "root", folder / "server.log"
    root.mkdir(parents=True)
    words: Sequence[str] = (
        str(installed.prefix / "bin/python"),
        *("-m", "jupyter_server", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0"),
        *(f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={root}"),
        *("--no-browser", "--allow-root", *options),
    )
    with log.open("wb") as said:
        process = subprocess.Popen(
            words,
            env={**installed.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
        try:
            yield Running(_address(process, log), root, log, process)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@asynccontextmanager
async def client_of(server: Running, **headers: str) -> AsyncGenerator[ClientSession]:
    """An MCP client of a server, with its token or with other headers."""
    given = headers or {"Authorization": f"token {TOKEN}"}
    async with (
        httpx2.AsyncClient(headers=given, timeout=60) as http,
        streamable_http_client(server.mcp_url, http_client=http) as streams,
        ClientSession(*streams[:2]) as client,
    ):
        with anyio.fail_after(120):
            await client.initialize()
            yield client


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until the server says where it is."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if found := _ADDRESS.search(log.read_text(errors="replace")):
            return found[0]
        assert process.poll() is None, log.read_text(errors="replace")
        time.sleep(0.05)
    raise AssertionError(log.read_text(errors="replace"))


def _run(*words: str) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        words, env=env, capture_output=True, text=True, timeout=COMMAND_S, check=False
    )
    assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout}{done.stderr}"
