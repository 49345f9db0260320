"""What attackers find beside a controller: a policy with a way out, and a server at its end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from .neighbour import Controller

OUT = """\
version: 1
network:
  allow:
    - {address: sink, ports: [%d]}
    - {domain: "*.silent.example"}
"""


@contextmanager
def sink() -> Iterator[int]:
    """A server on loopback that reads all and answers nothing; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=drain, args=(connection,), daemon=True).start()

    def drain(connection: socket.socket) -> None:
        with connection:
            try:
                while connection.recv(65536):
                    pass
            except OSError:
                pass  # cut

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def policies(folder: Path, port: int) -> dict[str, str]:
    """Write the policy ``out``, which leads to that port; the settings with which it counts."""
    (folder / "policies").mkdir()
    (folder / "policies/out.yaml").write_text(OUT % port)
    return {"SANDBOX_POLICIES": str(folder / "policies"), "SANDBOX_ADDRESSES": "sink=127.0.0.1"}


def close_everything(controller: Controller) -> None:
    """Close the sessions of all principals."""
    headers = {"Authorization": f"Bearer {controller.token('administrator', 'session,admin')}"}
    with httpx2.Client(base_url=controller.served.base, headers=headers, timeout=60) as http:
        for info in http.get("/mcp/v1/admin/sessions").json()["sessions"]:
            http.delete(f"/mcp/v1/admin/sessions/{info['session_id']}")
