"""Other ways to the local engine: over TCP, over TLS with certificates for both ends, through ssh.

Nothing here touches the engine itself: a proxy can be cut as if the engine had died.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from sandbox.runtimes.docker.endpoint import find_endpoint

SSH = '''#!{python}
"""Stands in for ssh: checks how it is called and gives what `docker system dial-stdio` gives."""
import socket, sys, threading
assert sys.argv[-5:] == ["--", "engine.test", "docker", "system", "dial-stdio"], sys.argv
assert "BatchMode=yes" in sys.argv and sys.argv[sys.argv.index("-l") + 1] == "somebody", sys.argv
engine = socket.socket(socket.AF_UNIX)
engine.connect({path!r})
ours = socket.socket(fileno=0)
def pump(source, target):
    while data := source.recv(65536):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)
threading.Thread(target=pump, args=(ours, engine), daemon=True).start()
pump(engine, ours)
'''


def engine_path() -> str:
    """The socket of the local engine, which these tests need."""
    endpoint = find_endpoint("", "", {})
    return endpoint.url.removeprefix("unix://")


class EngineProxy:
    """A listener before the local engine that can be cut and brought back.

    Args:
        context: Speak TLS with this; None for plain TCP.
        path: Listen on this Unix socket instead of a TCP port.
    """

    def __init__(self, context: ssl.SSLContext | None = None, path: Path | None = None) -> None:
        self._context = context
        self._path = path
        self._port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.held = asyncio.Event()
        """Set once bytes are held back, after :meth:`freeze`."""
        self.accepted = 0

    @property
    def url(self) -> str:
        return f"unix://{self._path}" if self._path else f"tcp://127.0.0.1:{self._port}"

    async def listen(self) -> None:
        if self._path:
            self._path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._accept, self._path)
        else:
            self._server = await asyncio.start_server(
                self._accept, "127.0.0.1", self._port, ssl=self._context
            )
            self._port = self._server.sockets[0].getsockname()[1]

    def freeze(self) -> None:
        """Pass nothing on any more, as an engine that hangs."""
        self._flowing.clear()
        self.held.clear()

    async def cut(self) -> None:
        """Stop listening and break every connection, as an engine that was killed."""
        if self._server:
            self._server.close()
            self._server = None
        self.break_connections()
        await asyncio.gather(*self._handlers)

    def break_connections(self) -> None:
        """Break what there is; new connections are taken and passed on."""
        for writer in self._writers:
            writer.transport.abort()
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.current_task()
        assert handler is not None
        self._handlers.add(handler)
        self.accepted += 1
        engine_reader, engine_writer = await asyncio.open_unix_connection(engine_path())
        self._writers |= {writer, engine_writer}
        with contextlib.suppress(OSError):
            await asyncio.gather(
                self._pump(reader, engine_writer), self._pump(engine_reader, writer)
            )
        for end in (writer, engine_writer):
            end.transport.abort()
            self._writers.discard(end)
        self._handlers.discard(handler)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not self._flowing.is_set():
                self.held.set()
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        else:  # TLS has no half-close
            writer.close()


@contextlib.asynccontextmanager
async def proxied(
    context: ssl.SSLContext | None = None, path: Path | None = None
) -> AsyncIterator[EngineProxy]:
    proxy = EngineProxy(context, path)
    await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.cut()


def make_certificates(directory: Path) -> None:
    """Write ca.pem, for a client cert.pem and key.pem, and server.pem with server-key.pem."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl("req", "-x509", *new, "-subj", "/CN=test", "-keyout", "ca-key.pem", "-out", "ca.pem")
    for name, use in (("server", "serverAuth"), ("client", "clientAuth")):
        usage = directory / f"{name}.ext"
        usage.write_text(f"extendedKeyUsage={use}\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n")
        request = ("-subj", f"/CN={name}", "-keyout", f"{name}-key.pem", "-out", f"{name}.csr")
        openssl("req", *new[:-2], *request)
        signed = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem"),
            *(*signed, "-extfile", f"{name}.ext"),
        )
    (directory / "client.pem").rename(directory / "cert.pem")
    (directory / "client-key.pem").rename(directory / "key.pem")


def server_context(directory: Path) -> ssl.SSLContext:
    """What an engine does with `--tlsverify`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=directory / "ca.pem")
    context.load_cert_chain(directory / "server.pem", directory / "server-key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def put_ssh(directory: Path) -> None:
    """Put an executable named ssh into a directory."""
    program = directory / "ssh"
    program.write_text(SSH.format(python=sys.executable, path=engine_path()))
    program.chmod(0o755)
