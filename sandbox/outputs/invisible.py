"""Characters that nobody sees, made visible: each is written as its escape, such as ``\\u202e``.

A text may say one thing to a person and another to a model: characters that turn the direction of
writing show code in another order than it has, and those of no width or of the block of tags carry
whole messages that only a program reads. They are kept where a script needs them, which is told by
what stands before them:

* a joiner after a letter of a script that has them (Arabic, Indic and others); the zero width
  joiner also after an emoji, of which it makes one with the next;
* a mark of direction after a letter of a script that is written from right to left;
* a variation selector after a character that has variants;
* the tags of the three flags that Unicode recommends, as a whole.

One at a time is kept, so that no more than a few bits hide behind a letter that is seen. All the
others are escaped. What a text is and where it is cut makes no difference: nothing depends on what
follows, but for flags.

https://www.unicode.org/reports/tr36/, https://www.unicode.org/reports/tr51/
"""

from __future__ import annotations

import re

_ZERO_WIDTH_JOINER = "\u200d"
_NON_JOINER = "\u200c"
_MARKS = "\u200e\u200f\u061c"
_EMOJI_SELECTORS = "\ufe0e\ufe0f"
_SELECTORS = "\u180b-\u180d\u180f\ufe00-\ufe0d\U000e0100-\U000e010f"
_NEVER = (
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b\u2028-\u202e\u2060-\u206f\u3164\ufeff"
    "\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e00ff\U000e0110-\U000e0fff"
)
_INVISIBLE = _ZERO_WIDTH_JOINER + _NON_JOINER + _MARKS + _EMOJI_SELECTORS + _SELECTORS + _NEVER

_JOINED = (
    "\u0620-\u06dc\u06de-\u070e\u0710-\u109f\u1780-\u17b3\u17b6-\u180a\u1810-\u1cff"
    "\ua800-\uabff\ufb50-\ufdff\ufe70-\ufefc\U00010a00-\U00011fff"
)
_RIGHT_TO_LEFT = (
    "\u0590-\u05ff\u0620-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff"
)
_EMOJI = (
    "#*0-9\u00a9\u00ae\u203c\u2049\u2122-\u21ff\u2300-\u2bff\u3030\u303d\u3297\u3299"
    "\U0001f000-\U0001faff"
)
_WITH_VARIANTS = (
    "\u1000-\u109f\u1820-\u18af\u2200-\u22ff\u3001-\u312f\u3400-\u9fff\ua840-\ua87f"
    "\uaa60-\uaa7f\uf900-\ufaff\uff01-\uff60\U00020000-\U0003ffff"
)

_ANY = re.compile(f"[{_INVISIBLE}]")
_UNNEEDED = re.compile(
    f"(?=[{_INVISIBLE}])("
    f"[{_NEVER}]"
    f"|(?<![{_JOINED}{_EMOJI}])(?<![{_EMOJI}][{_EMOJI_SELECTORS}]){_ZERO_WIDTH_JOINER}"
    f"|(?<![{_JOINED}]){_NON_JOINER}"
    f"|(?<![{_RIGHT_TO_LEFT}])[{_MARKS}]"
    f"|(?<![{_EMOJI}{_WITH_VARIANTS}])[{_EMOJI_SELECTORS}]"
    f"|(?<![{_WITH_VARIANTS}])[{_SELECTORS}]"
    ")"
)
_BLACK_FLAG = "\U0001f3f4"
_REGIONS = "|".join(
    "".join(chr(0xE0000 + ord(letter)) for letter in region)
    for region in ("gbeng", "gbsct", "gbwls")
)
_FLAG = re.compile(f"({_BLACK_FLAG}(?:{_REGIONS})\U000e007f)")


class _Escapes(dict[str, str]):
    """The escape of each character that was asked for."""

    def __missing__(self, char: str) -> str:
        code = ord(char)
        escape = self[char] = f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
        return escape


_escapes = _Escapes()


def visible(text: str) -> str:
    """The text with every invisible character escaped that no script needs where it stands."""
    if text.isascii() or _ANY.search(text) is None:
        return text
    if _BLACK_FLAG not in text:
        return _escaped(text)
    parts = _FLAG.split(text)
    parts[::2] = map(_escaped, parts[::2])
    return "".join(parts)


def without_invisible(text: str) -> str:
    """The same without those that are kept: for a grid, in which each character has its place."""
    return text if text.isascii() else _ANY.sub("", visible(text))


def _escaped(text: str) -> str:
    parts = _UNNEEDED.split(text)
    parts[1::2] = [_escapes[char] for char in parts[1::2]]
    return "".join(parts)
