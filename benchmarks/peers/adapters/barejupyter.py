"""A bare kernel of this machine through jupyter_client: no container, no isolation."""

from __future__ import annotations

from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

from benchmarks.peers.adapters.loop import Adapter, Lacking, serve

Session = tuple[KernelManager, BlockingKernelClient]
TIMEOUT_S = 60


class BareJupyter(Adapter):
    """A session is a kernel in a process of its own."""

    def open(self) -> Session:
        return start_new_kernel(kernel_name="python3")

    def run(self, session: Session, code: str) -> str:
        parts: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                parts.append(message["content"]["text"])

        reply = session[1].execute_interactive(code, output_hook=hear, timeout=TIMEOUT_S)
        if reply["content"]["status"] != "ok":
            raise RuntimeError(reply["content"])
        return "".join(parts)

    def restart(self, session: Session) -> None:
        manager, client = session
        manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=TIMEOUT_S)

    def put(self, session: Session, source: object, name: str) -> None:
        raise Lacking("it shares this machine's files")

    def get(self, session: Session, name: str, target: object) -> None:
        raise Lacking("it shares this machine's files")

    def close(self, session: Session) -> None:
        manager, client = session
        client.stop_channels()
        manager.shutdown_kernel(now=True)

    def processes(self, session: Session) -> list[int]:
        return [session[0].provisioner.pid]


if __name__ == "__main__":
    serve(BareJupyter())
