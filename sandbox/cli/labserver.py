"""The person's own JupyterLab, started for its pages alone.

It listens at a Unix socket in a folder of its own, which no browser and nobody else reaches, with
settings of its own, so that nothing of what a page does stays on this machine.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL

import anyio
import anyio.to_thread
from anyio.abc import ByteStream, Process

from sandbox.cli.labproxy import Upstream
from sandbox.errors import InfrastructureError, NotFound

START_S = 60.0
POLL_S = 0.1
STOP_S = 5.0
PROGRAM = "jupyter-lab"
LOG_SHOWN = 2000

DISABLED = (
    # A text file is no shared document of a session: it is read and written as a file.
    "@jupyter/docprovider-extension:yfile",
    # There is no timeline and no fork of a session's notebook.
    "@jupyter/docprovider-extension:statusBarTimeline",
    "@jupyter/docprovider-extension:forkManager",
    # What would change this machine, or ask others what is new.
    "@jupyterlab/extensionmanager-extension:plugin",
    "@jupyterlab/apputils-extension:announcements",
)
"""The parts of JupyterLab that would ask for what is not there."""
FOR_ONESELF = (
    # Who else has the session open is not for a guest, who is in one notebook.
    "@jupyter/collaboration-extension:rtcGlobalAwareness",
    "@jupyter/collaboration-extension:rtcPanel",
)
"""Those that would ask for what a guest does not get."""


@dataclass(frozen=True, slots=True)
class _Connecting:
    """A connection to the socket, whenever one is needed."""

    path: str

    async def __call__(self) -> ByteStream:
        return await anyio.connect_unix(self.path)


def find_lab(wanted: Path | None) -> Path:
    """The program of a JupyterLab: the one that is named, else that beside our Python, else the
    first on the path.

    Raises:
        NotFound: There is none.
    """
    if wanted is not None:
        found = wanted / PROGRAM if wanted.is_dir() else wanted
        if os.access(found, os.X_OK) and found.is_file():
            return found.absolute()
        raise NotFound(f"There is no JupyterLab at {wanted}.", remedy="Name its `jupyter-lab`.")
    beside = Path(sys.executable).with_name(PROGRAM)
    on_path = shutil.which(PROGRAM)
    if beside.is_file():
        return beside
    if on_path:
        return Path(on_path).absolute()
    raise NotFound(
        "There is no JupyterLab here.",
        remedy="`pip install jupyterlab jupyter-collaboration`, or name one with --jupyter.",
    )


@asynccontextmanager
async def lab_pages(program: Path, *, for_guest: bool = False) -> AsyncGenerator[Upstream]:
    """A JupyterLab for its pages, until the block ends.

    Args:
        for_guest: Whether the pages are for one notebook, without kernels and terminals.

    Raises:
        InfrastructureError: It does not start.
    """
    folder = Path(await anyio.to_thread.run_sync(_furnished, for_guest))
    token, socket, log = secrets.token_urlsafe(32), str(folder / "lab.sock"), folder / "log"
    try:
        with log.open("wb") as out:
            process = await anyio.open_process(
                [
                    str(program),
                    "--no-browser",
                    f"--ServerApp.sock={socket}",
                    f"--ServerApp.root_dir={folder / 'root'}",
                    "--ServerApp.allow_root=True",
                    f"--ServerApp.terminals_enabled={not for_guest}",  # what the pages know of
                    "--LabApp.extension_manager=readonly",
                ],
                stdin=DEVNULL,
                stdout=out,
                stderr=out,
                cwd=folder / "root",
                env=_environment(folder, token),
                start_new_session=True,  # a Ctrl-C ends it through us, in order
            )
        upstream = Upstream(_Connecting(socket), "localhost", f"token {token}")
        try:
            await _until_ready(process, upstream, log)
            yield upstream
        finally:
            with anyio.CancelScope(shield=True):
                await _stop(process)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))


def _furnished(for_guest: bool) -> str:
    folder = tempfile.mkdtemp(prefix="sandbox-lab-")
    for name in ("root", "runtime", "settings", "workspaces"):
        Path(folder, name).mkdir()
    config = Path(folder, "config", "labconfig")
    config.mkdir(parents=True)
    disabled = DISABLED + (FOR_ONESELF if for_guest else ())
    told = {
        "disabledExtensions": dict.fromkeys(disabled, True),
        "notebookStartsKernel": not for_guest,  # else they ask which one
    }
    (config / "page_config.json").write_text(json.dumps(told))
    return folder


def _environment(folder: Path, token: str) -> dict[str, str]:
    """What it needs, without our own settings and secrets."""
    known = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SANDBOX_", "JUPYTER_TOKEN", "PYTHONPATH"))
    }
    return {
        **known,
        "JUPYTER_TOKEN": token,
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }


async def _until_ready(process: Process, upstream: Upstream, log: Path) -> None:
    with anyio.move_on_after(START_S):
        while process.returncode is None:
            if await _answers(upstream):
                return
            await anyio.sleep(POLL_S)
    said = (await anyio.Path(log).read_bytes())[-LOG_SHOWN:].decode(errors="replace")
    raise InfrastructureError(
        f"JupyterLab does not start: {said.strip() or 'it says nothing'}",
        remedy="Look whether `jupyter lab` works by itself.",
    )


async def _answers(upstream: Upstream) -> bool:
    asked = (
        f"GET /lab HTTP/1.1\r\nHost: {upstream.host}\r\n"
        f"Authorization: {upstream.authorization}\r\nConnection: close\r\n\r\n"
    )
    try:
        async with await upstream.connect() as stream:
            await stream.send(asked.encode())
            with anyio.fail_after(START_S):
                return (await stream.receive()).startswith(b"HTTP/1.1 200")
    except (OSError, anyio.EndOfStream, anyio.BrokenResourceError, TimeoutError):
        return False


async def _stop(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
        with anyio.move_on_after(STOP_S):
            await process.wait()
    if process.returncode is None:
        process.kill()
    await process.aclose()
