"""A kernel in a sandbox, as the bridge uses it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from sandbox.kernels.jupytermessages import JupyterMessage


@dataclass(frozen=True, slots=True)
class Ended:
    """The kernel's process has ended by itself; nothing more comes until it is restarted."""

    reason: str
    is_for_good: bool = False
    """Whether its session is gone too, so that nothing can be restarted."""


class SandboxedKernel(Protocol):
    """A kernel of a session that the bridge has opened."""

    session_id: str

    async def send(self, message: JupyterMessage) -> None:
        """Take a message of a client; this does not wait for the kernel."""
        ...

    def heard(self) -> AsyncGenerator[JupyterMessage | Ended]:
        """What it says, in order, with the headers of what its clients have sent as the parents."""
        ...

    async def interrupt(self) -> None:
        """Interrupt what it runs; harmless when it runs nothing."""
        ...

    async def restart(self) -> None:
        """Start it anew, dead or alive, and wait until it answers."""
        ...

    def denials(self) -> tuple[str, ...]:
        """What its network was refused since the last time this was asked, a line each."""
        ...


def is_death(message: JupyterMessage) -> bool:
    """Whether a message says that the kernel is dead; its own code may say so, too."""
    is_nobodys = message.msg_type == "status" and not message.parent_header
    return is_nobodys and message.content.get("execution_state") == "dead"
