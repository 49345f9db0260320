"""What a program in a sandbox may do to the terminal of the person who looks at it.

It may draw: text, colours, the cursor, scrolling, the alternate screen, and the modes for mouse and
paste. It may not ask the terminal anything, for what a terminal answers is typed into the program
as if by the person; nor reach what is beyond the screen: the clipboard, titles, links, files,
printers, the window. Only what is known to draw passes, so what is not known does not.

https://invisible-island.net/xterm/ctlseqs/ctlseqs.html
"""

from __future__ import annotations

import codecs
import re

MAX_SEQUENCE = 256
"""Characters of a control sequence; a longer one is left out."""
MAX_STRING = 64 * 1024
"""Characters that are swallowed of a string that does not end; then text is text again."""

_CONTROLS = frozenset("\a\b\t\n\v\f\r\x0e\x0f")
_COMMON = re.compile(
    "(?:[ -~\xa0-\U0010ffff\\n\\r\\t]+"
    "|\x1b\\[[0-9]{0,4}(?:[;:][0-9]{0,4}){0,32}[@ABCDEFGHIKLMPXZ`adefgmrsu])+"
)
"""What passes without a second look outside a sequence: text, and most of what draws."""
_SHORT = frozenset("78=>DEHM")
"""What may follow ESC alone: to save and restore the cursor, keypad modes, lines, tabs."""
_RESET = "\x1b[!p\x1b[m\x1b[H\x1b[2J"
"""What stands for a full reset, which would also take what the terminal showed before."""
_CHARSETS = frozenset("()*+")
_CHARSET = re.compile(r"[0-9A-Z]")
_STRINGS = frozenset("]PX^_k")
"""What begins a string after ESC: OSC, DCS, SOS, PM, APC, and screen's title."""
_DRAWING = frozenset("@ABCDEFGHIJKLMPSTXZ`abdefgmrsu")
_PLAIN = re.compile(r"[0-9;:]*")
_NUMBER = re.compile(r"[0-9]+")
MAX_NUMBER = 9999
_MODES = frozenset((4, 20))
PRIVATE_MODES = frozenset(
    (
        *(1, 5, 6, 7, 12, 25, 45, 47, 66, 69),
        *(1000, 1002, 1003, 1004, 1005, 1006, 1007, 1015, 1047, 1048, 1049, 2004, 2026),
    )
)
"""Of the cursor, its keys, the screen's edges, the mouse, focus, the alternate screen, paste."""
_ON_AT_FIRST = frozenset((7, 25))


class TerminalFilter:
    """Lets through what draws; one for the whole of a terminal's output."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""
        """The beginning of a sequence."""
        self._string = 0
        """Characters of a string so far; 0 outside one."""
        self._is_shaped = False
        """Whether the cursor was given a shape."""
        self._is_drawn = False
        """Whether anything has passed but text: colours, another set of characters, edges."""
        self._changed: dict[int, bool] = {}
        """The private modes that are not as at first."""

    def feed(self, data: bytes) -> str:
        """What of it may be written to the terminal."""
        text = self._decoder.decode(data)
        out: list[str] = []
        at = 0
        while at < len(text):
            run = None if self._string or self._pending else _COMMON.match(text, at)
            if run is not None:
                out.append(run[0])
                at = run.end()
            else:
                out.append(self._take(text[at]))
                at += 1
        shown = "".join(out)
        self._is_drawn = self._is_drawn or "\x1b" in shown or "\x0e" in shown
        return shown

    @property
    def is_changed(self) -> bool:
        """Whether the terminal may not be as it was at first."""
        return self._is_drawn

    def restored(self) -> str:
        """What puts the terminal back as it was: colours, the cursor, and every mode."""
        wanted = sorted(self._changed.items(), reverse=True)
        modes = "".join(f"\x1b[?{mode}{'l' if is_on else 'h'}" for mode, is_on in wanted)
        self._changed.clear()
        shape = "\x1b[0 q" if self._is_shaped else ""
        self._is_shaped = self._is_drawn = False
        return f"{modes}{shape}\x1b7\x1b[r\x1b8\x1b[4l\x1b[m\x1b(B\x0f\x1b>"

    def _take(self, char: str) -> str:
        if self._string:
            return self._within_string(char)
        if not self._pending:
            if char == "\x1b":
                self._pending = char
                return ""
            if char < " " or char == "\x7f" or "\x80" <= char <= "\x9f":
                return char if char in _CONTROLS else ""
            return char
        if char in "\x18\x1a":  # they cancel a sequence
            self._pending = ""
            return ""
        if char == "\x1b":
            self._pending = char
            return ""
        if char < " " or "\x7f" <= char <= "\x9f":
            return ""  # a terminal would obey it in the midst of the sequence
        self._pending += char
        return self._sequence()

    def _within_string(self, char: str) -> str:
        self._string += 1
        if char in "\a\x18\x1a\x9c" or (self._pending == "\x1b" and char == "\\"):
            self._string, self._pending = 0, ""
        elif self._pending == "\x1b" and char != "\x1b":  # any other sequence ends it, too
            self._string, self._pending = 0, "\x1b"
            return self._take(char)
        elif self._string > MAX_STRING:
            self._string, self._pending = 0, ""
        else:
            self._pending = "\x1b" if char == "\x1b" else ""
        return ""

    def _sequence(self) -> str:
        """The sequence if it is whole and may pass."""
        sequence = self._pending
        kind, rest = sequence[1], sequence[2:]
        if kind in _STRINGS:
            self._string, self._pending = 1, ""
            return ""
        if kind == "[":
            if not rest or not "@" <= rest[-1] <= "~":
                if len(sequence) > MAX_SEQUENCE:
                    self._pending = ""
                return ""
            self._pending = ""
            return self._control(sequence, rest[:-1], rest[-1])
        if kind in _CHARSETS:
            if not rest:
                return ""
            self._pending = ""
            return sequence if _CHARSET.fullmatch(rest) else ""
        if " " <= kind <= "/":  # an intermediate: the final one follows, and none of them passes
            if (rest and "0" <= rest[-1] <= "~") or len(sequence) > MAX_SEQUENCE:
                self._pending = ""
            return ""
        self._pending = ""
        return sequence if kind in _SHORT else _RESET if kind == "c" else ""

    def _control(self, sequence: str, parameters: str, final: str) -> str:
        if any(int(number) > MAX_NUMBER for number in _NUMBER.findall(parameters[:MAX_SEQUENCE])):
            return ""
        if final in _DRAWING and _PLAIN.fullmatch(parameters):
            if final == "T" and ";" in parameters:  # that tracks the mouse
                return ""
            if final == "J" and parameters == "3":  # that forgets what was shown before
                return ""
            return sequence
        if final in "hl":
            return self._modes(parameters, final)
        if sequence == "\x1b[!p":
            self._changed.clear()
            return sequence
        if final == "q" and re.fullmatch(r"[0-6]? ", parameters):  # the cursor's shape
            self._is_shaped = True
            return sequence
        if final in "JK" and re.fullmatch(r"\?[0-3]?", parameters):
            return sequence
        return ""

    def _modes(self, parameters: str, final: str) -> str:
        """Those of the modes that may be set or reset."""
        mark = "?" if parameters.startswith("?") else ""
        known = PRIVATE_MODES if mark else _MODES
        numbers = [int(each) for each in _NUMBER.findall(parameters)]
        if not re.fullmatch(r"\??[0-9;]*", parameters):
            return ""
        kept = [mode for mode in numbers if mode in known]
        if mark:
            for mode in kept:
                is_on = final == "h"
                if is_on == (mode in _ON_AT_FIRST):
                    self._changed.pop(mode, None)
                else:
                    self._changed[mode] = is_on
        return f"\x1b[{mark}{';'.join(map(str, kept))}{final}" if kept else ""
