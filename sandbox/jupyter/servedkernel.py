"""A kernel of a session of a served controller, over the WebSocket of a Jupyter client."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio

from sandbox.cli.hostfiles import Outgoing
from sandbox.cli.newsession import new_session
from sandbox.cli.remoteaccess import RemoteAccess
from sandbox.cli.restclient import RestClient
from sandbox.cli.targets import ControllerTarget
from sandbox.cli.transfers import copy_in
from sandbox.cli.websocket import SocketClient
from sandbox.config import Settings, load
from sandbox.errors import Conflict, InvalidRequest, SandboxError
from sandbox.jupyter.kernelconfig import KernelConfig
from sandbox.jupyter.sandboxedkernel import Ended, is_death
from sandbox.jupyter.socketframes import read
from sandbox.kernels.jupytermessages import JupyterMessage
from sandbox.kernels.kernels import DEFAULT_KERNEL_ID, DEFAULT_KERNEL_NAME
from sandbox.kernels.messages import made_header
from sandbox.link import wire
from sandbox.server.jupyter.kernelframes import PlainFrames

FIRST_KERNEL_S = 30.0
RESTART_S = 90.0
POLL_S = 0.05
MAX_TOKEN = 64 * 1024
SESSION = "sandbox-bridge"


def client_of(settings: Settings, config: KernelConfig) -> RestClient:
    """A client of the served controller of a kernelspec.

    Raises:
        InvalidRequest: Its URL or token can be none.
    """
    return _target(config).client(settings)


def _target(config: KernelConfig) -> ControllerTarget:
    token = ""
    if config.token_file:
        try:
            with Path(config.token_file).open() as file:
                token = file.read(MAX_TOKEN).strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise InvalidRequest(f"The token file {config.token_file} cannot be read.") from exc
    return ControllerTarget(config.url, token)


@asynccontextmanager
async def served_kernel(config: KernelConfig) -> AsyncGenerator[ServedKernel]:
    """A kernel that answers, in a new session there, which is closed at the end.

    Raises:
        SandboxError: It could not be started; nothing is left of it.
    """
    settings, target = load(env=os.environ).settings, _target(config)
    outgoing = Outgoing()
    for path in map(Path, config.with_):
        outgoing.add(path, path.name)
    opened = new_session(settings, target, config.policy, "kernel provisioner", config.data())
    async with target.client(settings) as client, opened as (access, _):
        if outgoing.files or outgoing.folders:
            await copy_in(cast("RemoteAccess", access), outgoing)
        kernel_id = await _start(client, access.session_id, config.kernel)
        async with client.kernel(access.session_id, kernel_id) as channel:
            yield ServedKernel(client, access.session_id, kernel_id, channel)


async def _start(client: RestClient, session_id: str, name: str) -> str:
    """Start a kernel, or wait for the one that a session starts by itself."""
    if name != DEFAULT_KERNEL_NAME:
        body = {"kernel_name": name}
        started = await client.call("POST", "sessions", session_id, "kernels", body=body)
        return str(started["kernel_id"])
    with anyio.fail_after(FIRST_KERNEL_S):
        while True:
            found = await _info(client, session_id, DEFAULT_KERNEL_ID)
            if found.get("state") in ("idle", "busy"):
                return DEFAULT_KERNEL_ID
            await anyio.sleep(POLL_S)


async def _info(client: RestClient, session_id: str, kernel_id: str) -> Mapping[str, Any]:
    """A kernel as its controller tells of it; empty when it does not know it."""
    told = await client.call("GET", "sessions", session_id, "kernels")
    for each in told.get("kernels", ()):
        if each.get("kernel_id") == kernel_id:
            return cast("Mapping[str, Any]", each)
    return {}


class ServedKernel:
    """A kernel of a session of a served controller."""

    def __init__(
        self, client: RestClient, session_id: str, kernel_id: str, channel: SocketClient
    ) -> None:
        self.session_id = session_id
        self._client = client
        self._kernel_id = kernel_id
        self._channel = channel
        self._restart_id = ""
        """The request for a restart whose reply is awaited."""
        self._reply: Mapping[str, Any] = {}
        self._replied = anyio.Event()

    async def send(self, message: JupyterMessage) -> None:
        """Take a message of a client."""
        await self._channel.send_whole(PlainFrames().written(message))

    async def heard(self) -> AsyncGenerator[JupyterMessage | Ended]:
        """What it says, until the connection or the session has ended."""
        reason = ""
        while True:
            try:
                frame = await self._channel.receive()
            except SandboxError as exc:
                reason = str(exc)
                break
            if frame is None:
                break
            message = read(frame)
            if message.parent_header.get("msg_id") == self._restart_id:
                if message.channel == "control":
                    self._reply = message.content
                    self._replied.set()
            elif is_death(message) and (why := await self._death()):
                yield Ended(why)
            else:
                yield message
        yield Ended(reason or "The connection to its controller has ended.", is_for_good=True)

    async def interrupt(self) -> None:
        """Interrupt what it runs."""
        await self.send(_request("interrupt_request", {}))

    async def restart(self) -> None:
        """Start it anew, and wait until that is said to be done."""
        request = _request("shutdown_request", {"restart": True})
        self._restart_id, self._replied = request.msg_id, anyio.Event()
        self._reply = {}
        with anyio.move_on_after(RESTART_S):
            await self.send(request)
            await self._replied.wait()
        if self._reply.get("status") != "ok":
            why = str(self._reply.get("evalue", ""))[:500]
            raise Conflict(f"The kernel was not restarted. {why}".rstrip())

    def denials(self) -> tuple[str, ...]:
        """Nothing: the controller has them on record."""
        return ()

    async def _death(self) -> str:
        """Why it died; empty when it has not, and only its own code says so."""
        try:
            info = await _info(self._client, self.session_id, self._kernel_id)
        except SandboxError as exc:
            return str(exc)
        if info and info.get("state") != "dead":
            return ""
        return str(info.get("reason") or "Its controller does not say why.")


def _request(kind: str, content: Mapping[str, Any]) -> JupyterMessage:
    return JupyterMessage("control", made_header(kind, SESSION), {}, wire.encode_json(content))
