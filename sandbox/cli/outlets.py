"""Standard output and error, written to as a sandbox writes: filtered where a terminal obeys."""

from __future__ import annotations

import os

import anyio
import anyio.to_thread

from sandbox.cli.escapes import TerminalFilter

RESTORE_S = 2.0
"""For a terminal that takes nothing at the moment."""


class Sink:
    """One descriptor that output of a sandbox goes to; a terminal gets what draws, a pipe all."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._filter = TerminalFilter() if os.isatty(fd) else None

    async def write(self, data: bytes) -> None:
        """Write bytes, waiting for whoever reads them."""
        shown = data if self._filter is None else self._filter.feed(data).encode()
        await anyio.to_thread.run_sync(write_all, self._fd, shown, abandon_on_cancel=True)

    async def close(self) -> None:
        """Put the terminal back, if the output has changed it; also when all is being ended."""
        if self._filter is not None and self._filter.is_changed:
            restored = self._filter.restored().encode()
            with anyio.move_on_after(RESTORE_S, shield=True):
                await anyio.to_thread.run_sync(
                    write_all, self._fd, restored, abandon_on_cancel=True
                )


def write_all(fd: int, data: bytes) -> None:
    """Write all of it to a descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
