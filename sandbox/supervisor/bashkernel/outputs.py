"""What the commands of a cell write, as text: during the cell, and afterwards as long as any live.

Standard output and standard error are one pipe, as they are one terminal on a person's machine:
what is written is read in the order in which it was written.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
from collections.abc import Callable

READ_BYTES = 96 * 1024
"""More than a pipe holds: what a cell has written when it ends is read at once."""


class CellOutput:
    """The pipe of one cell.

    Args:
        on_text: Called with the name of a stream, and the next text.
        paced: Calls back once what was sent has been taken; nothing is read before.
    """

    def __init__(
        self, on_text: Callable[[str, str], None], paced: Callable[[Callable[[], None]], None]
    ) -> None:
        self._on_text = on_text
        self._paced = paced
        self._fd, self._write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._fd, False)
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._loop = asyncio.get_running_loop()
        self._watch()

    @property
    def write_fd(self) -> int:
        """The end that the cell writes to."""
        return self._write_fd

    def end_cell(self) -> None:
        """The cell has ended: read what it has written, and go on with what still writes."""
        self._read()
        self._tell(b"", final=True)
        with contextlib.suppress(OSError):
            os.close(self._write_fd)

    def _watch(self) -> None:
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._readable)

    def _readable(self) -> None:
        self._loop.remove_reader(self._fd)
        self._read()
        if self._fd >= 0:
            self._paced(self._watch)

    def _read(self) -> None:
        if self._fd < 0:
            return
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        self._tell(data, final=not data)
        if not data:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _tell(self, data: bytes, *, final: bool) -> None:
        if text := self._decoder.decode(data, final=final):
            self._on_text("stdout", text)
