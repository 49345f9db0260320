"""A kernel in a sandbox, as the bridge uses it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from sandbox.jupyter.signing import JupyterMessage


@dataclass(frozen=True, slots=True)
class Said:
    """A message of the kernel."""

    message: JupyterMessage
    parent_id: str
    """The id of the request that it belongs to; empty when it names none."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The kernel's process has ended by itself; nothing more comes until it is restarted."""

    reason: str
    code: int
    """As of a process of this machine: negative for a signal."""
    is_for_good: bool = False
    """Whether its session is gone too, so that nothing can be restarted."""


@dataclass(frozen=True, slots=True)
class Missed:
    """Messages that were forgotten before they could be read here."""

    count: int


Heard = Said | Ended | Missed


class SandboxedKernel(Protocol):
    """A kernel of a session that the bridge has opened."""

    session_id: str

    async def send(self, message: JupyterMessage) -> None:
        """Send it a request."""
        ...

    def heard(self) -> AsyncIterator[Heard]:
        """What it says, in order, from its start on and over restarts."""
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
