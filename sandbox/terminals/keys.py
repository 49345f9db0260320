"""The names of keys and the bytes a terminal sends for them, as xterm does.

https://invisible-island.net/xterm/ctlseqs/ctlseqs.html
"""

from __future__ import annotations

import string
from collections.abc import Iterable

from sandbox.errors import InvalidRequest

_NAMED = {
    "enter": "\r",
    "tab": "\t",
    "shift-tab": "\x1b[Z",
    "escape": "\x1b",
    "esc": "\x1b",
    "space": " ",
    "backspace": "\x7f",
    "insert": "\x1b[2~",
    "delete": "\x1b[3~",
    "page-up": "\x1b[5~",
    "pageup": "\x1b[5~",
    "page-down": "\x1b[6~",
    "pagedown": "\x1b[6~",
    "ctrl-space": "\x00",
    "ctrl-\\": "\x1c",
    "ctrl-]": "\x1d",
    "ctrl-_": "\x1f",
    **{f"ctrl-{letter}": chr(ord(letter) & 0x1F) for letter in string.ascii_lowercase},
    **{f"f{n}": f"\x1bO{letter}" for n, letter in zip(range(1, 5), "PQRS", strict=True)},
    **{
        f"f{n}": f"\x1b[{code}~"
        for n, code in zip(range(5, 13), (15, 17, 18, 19, 20, 21, 23, 24), strict=True)
    },
}
_CURSOR = {"up": "A", "down": "B", "right": "C", "left": "D", "home": "H", "end": "F"}


def encode_keys(names: Iterable[str], *, application_cursor: bool = False) -> str:
    """What is sent for keys pressed one after the other.

    Args:
        names: Such as ``enter``, ``ctrl-c``, ``alt-x``; letter case does not matter but for the
            character after ``alt-``.
        application_cursor: Whether the program has asked for the other form of the cursor keys.

    Raises:
        InvalidRequest: A name stands for no key.
    """
    return "".join(_encode(name, "\x1bO" if application_cursor else "\x1b[") for name in names)


def _encode(name: str, cursor: str) -> str:
    lower = name.lower()
    if lower in _NAMED:
        return _NAMED[lower]
    if lower in _CURSOR:
        return cursor + _CURSOR[lower]
    modifier, _, key = name.partition("-")
    if modifier.lower() == "alt" and len(key) == 1 and key.isprintable():
        return f"\x1b{key}"
    raise InvalidRequest(
        f"There is no key {name!r:.40}.",
        remedy="Keys are enter, tab, escape, space, backspace, insert, delete, up, down, left, "
        "right, home, end, page-up, page-down, f1 to f12, ctrl-a to ctrl-z and alt- with a "
        "character. Send other characters as text.",
    )
