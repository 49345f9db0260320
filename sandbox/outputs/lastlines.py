"""The last lines of a text that is written as to a terminal: a cursor in them may go back.

A progress bar returns to the start of its line, several of them go some lines up and draw all of
them anew. Whatever is further up than ``MAX_LINES`` lines, or than the characters that are held,
is done: nothing changes it any more, and a cursor that goes up stops below it. There is no width at
which lines are wrapped, and no absolute place: a program that draws a whole screen is read as a
terminal, not here.

What comes of a text does not depend on the pieces in which it is written.
"""

from __future__ import annotations

import re

MAX_LINES = 64
"""The lines that can still be written over."""
MAX_COLUMN = 200
"""How far right a cursor goes where there is no text yet."""
SPARE = 4096
"""The blanks that a cursor which goes right may leave, beside one for each character written."""

MOVES = r"\x1b\[[0-9]{0,6}[A-GJK]"
"""The sequences that are followed: up, down, right, left, next and previous line, column, and the
erasures of the screen below and of the line."""

_TOKEN = re.compile(r"([^\n\x08\x1b]+)|(\n{1,4096})|(\x08+)|\x1b\[([0-9]{0,6})([A-GJK])")
_DRAWING = ("\r", "\b", "\x1b")


class LastLines:
    """The lines that may still change, at most so many characters of them, and a cursor."""

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max(1, max_chars)
        self._done: list[str] = []
        self._spare = SPARE
        self._begin()

    def _begin(self) -> None:
        self._lines = [""]
        self._row = self._column = 0
        self.size = 0
        """The characters of all lines."""

    @property
    def text(self) -> str:
        """The lines as they look, without what was wiped below the cursor."""
        count = len(self._lines)
        while count - 1 > self._row and not self._lines[count - 1].strip(" "):
            count -= 1
        return "\n".join(self._lines[:count])

    def write(self, text: str) -> None:
        """Write a text without control characters but tabs, line ends and those that move or
        erase: see :data:`MOVES`."""
        drawn = max(map(text.rfind, _DRAWING))
        if drawn >= 0 or not self._is_at_end:
            end = text.find("\n", drawn + 1) + 1 or len(text)
            self._draw(text[:end])
            text = text[end:]
            if text and not self._is_at_end:
                self._draw(text)
                return
        if text:
            self._append(text)

    def done(self) -> str:
        """The text that has become unchangeable since the last call."""
        done = "".join(self._done)
        self._done.clear()
        return done

    def flush(self) -> str:
        """Make all of it unchangeable, and begin anew."""
        text = self.done() + self.text
        self._begin()
        return text

    # --- inside

    @property
    def _is_at_end(self) -> bool:
        return self._row == len(self._lines) - 1 and self._column == len(self._lines[-1])

    def _append(self, text: str) -> None:
        """Write a text at the end that only has line ends and tabs in it."""
        self._spare = min(SPARE, self._spare + len(text))
        if self.size + len(text) <= self._max_chars:
            first, *more = text.split("\n")
            self._lines[-1] += first
            self._lines += more
            self.size += len(text) - len(more)
            self._row, self._column = len(self._lines) - 1, len(self._lines[-1])
            self._release(len(self._lines) - MAX_LINES)
            return
        *above, last = self._lines
        first, *lines = (last + text).rsplit("\n", MAX_LINES)
        if len(lines) < MAX_LINES:
            lines = [*above, first, *lines]
        else:
            self._done += (f"{line}\n" for line in (*above, first))
        size, start = 0, len(lines)
        while start and len(lines) - start < MAX_LINES:
            line = lines[start - 1]
            if len(line) > self._max_chars:  # it was handed on each time that it was that long
                held = len(line) % (self._max_chars + 1)
                if size + held <= self._max_chars:
                    start -= 1
                    size += held
                    self._done += (f"{each}\n" for each in lines[:start])
                    self._done.append(line[: len(line) - held])
                    lines[: start + 1] = [line[len(line) - held :]]
                    start = 0
                break
            if size + len(line) > self._max_chars:
                break
            start -= 1
            size += len(line)
        self._done += (f"{line}\n" for line in lines[:start])
        self._lines, self.size = lines[start:], size
        self._row, self._column = len(self._lines) - 1, len(self._lines[-1])

    def _draw(self, text: str) -> None:
        for match in _TOKEN.finditer(text):
            run, ends, backspaces, count, move = match.groups()
            if run:
                if "\r" in run:
                    run = self._return(run)
                self._write(run)
            elif ends:
                self._end_lines(len(ends))
            elif backspaces:
                self._column = max(0, self._column - len(backspaces))
            else:
                self._move(move, int(count or 0))

    def _return(self, run: str) -> str:
        """Write what is before the last return of a run, and return what is after it."""
        first, *others, last = run.split("\r")
        if first:
            self._write(first)
        if not others:
            self._column = 0
            return last
        line = self._lines[self._row]
        longest = max(map(len, others), default=0)
        if self.size + longest - len(line) > self._max_chars:
            for each in others:
                self._column = 0
                self._write(each)
        else:  # only what can be seen in the end is written
            seen: list[str] = []
            width = 0
            for each in reversed(others):
                if len(each) > width:
                    seen.append(each[width:])
                    width = len(each)
            self._change("".join(seen) + line[width:])
            self._spare = min(SPARE, self._spare + sum(map(len, others)))
        self._column = 0
        return last

    def _write(self, run: str) -> None:
        line, column = self._lines[self._row], self._column
        end = column + len(run)
        size = self.size + max(0, end - len(line))
        if column <= len(line) and size <= self._max_chars:
            self._lines[self._row] = line[:column] + run + line[end:]
            self.size, self._column = size, end
            self._spare = min(SPARE, self._spare + len(run))
            return
        while run:
            line, column = self._lines[self._row], self._column
            if column > len(line):
                blanks = min(column - len(line), self._spare, self._max_chars - self.size)
                self._spare -= blanks
                self._change(line + " " * blanks)
                line = self._lines[self._row]
                column = len(line)
            room = len(line) - column + self._max_chars + 1 - self.size
            part, run = run[:room], run[room:]
            self._change(line[:column] + part + line[column + len(part) :])
            self._column = column + len(part)
            self._spare = min(SPARE, self._spare + len(part))
            while self.size > self._max_chars:
                self._make_room()

    def _end_lines(self, count: int) -> None:
        self._spare = min(SPARE, self._spare + count)
        self._row += count
        self._column = 0
        if (new := self._row + 1 - len(self._lines)) > 0:
            self._lines += [""] * new
            self._release(len(self._lines) - MAX_LINES)

    def _move(self, move: str, count: int) -> None:
        if move in "KJ":
            self._erase(move, count)
        elif move in "AF":
            self._row = max(0, self._row - (count or 1))
        elif move in "BE":
            self._row = min(len(self._lines) - 1, self._row + (count or 1))
        elif move == "D":
            self._column = max(0, self._column - (count or 1))
        else:
            column = max(0, count - 1) if move == "G" else self._column + (count or 1)
            far = max(MAX_COLUMN, len(self._lines[self._row]))
            self._column = min(column, max(far, self._column))
        if move in "EF":
            self._column = 0

    def _erase(self, what: str, count: int) -> None:
        line = self._lines[self._row]
        if count == 0:
            self._change(line[: self._column])
            if what == "J":
                self.size -= sum(map(len, self._lines[self._row + 1 :]))
                del self._lines[self._row + 1 :]
        elif what == "K" and count == 1:
            erased = line[: self._column + 1]
            self._change(" " * len(erased) + line[len(erased) :])
        elif what == "K" and count == 2:
            self._change("")

    def _change(self, line: str) -> None:
        self.size += len(line) - len(self._lines[self._row])
        self._lines[self._row] = line

    def _release(self, count: int) -> None:
        """The first lines, above the cursor, are done."""
        if count > 0:
            lines = self._lines[:count]
            del self._lines[:count]
            self._done += (f"{line}\n" for line in lines)
            self.size -= sum(map(len, lines))
            self._row -= count

    def _make_room(self) -> None:
        if self._row:
            self._release(1)
        else:
            self._done.append(self.text + "\n" * (len(self._lines) > 1))
            self._begin()
