"""Sizes and durations as people write them: ``1GiB``, ``512 MiB``, ``5m``, ``1h30m``."""

from __future__ import annotations

import re

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB
MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_SIZES = {"TiB": TIB, "GiB": GIB, "MiB": MIB, "KiB": KIB, "B": 1}
_TIMES = {"d": DAY, "h": HOUR, "m": MINUTE, "s": 1}
_SIZE = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,6}))? ?(TiB|GiB|MiB|KiB|B)")
_DURATION = re.compile(
    r"(?=.)(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?"
)


SIZE_PATTERN = f"^{_SIZE.pattern}$"
DURATION_PATTERN = f"^{_DURATION.pattern}$"
"""The forms of both, for JSON Schema."""


def parse_size(text: str) -> int:
    """Return the bytes of a size such as ``1.5GiB``.

    Raises:
        ValueError: It is not a number with one of B, KiB, MiB, GiB and TiB, or it does not come
            to whole bytes.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size")
    whole, fraction, unit = match.group(1), match.group(2) or "", match.group(3)
    size_bytes, rest = divmod(int(whole + fraction) * _SIZES[unit], 10 ** len(fraction))
    if rest:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return size_bytes


def parse_duration(text: str) -> int:
    """Return the seconds of a duration such as ``90s`` or ``1h30m``.

    Raises:
        ValueError: It is not numbers with d, h, m and s, each at most once and in that order.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration")
    return sum(
        int(number) * unit_s
        for number, unit_s in zip(match.groups(), _TIMES.values(), strict=True)
        if number
    )


def format_size(size_bytes: int) -> str:
    """Write bytes in the largest unit that keeps them whole: 1610612736 is ``1536MiB``."""
    for unit, unit_bytes in _SIZES.items():
        if size_bytes >= unit_bytes and size_bytes % unit_bytes == 0:
            return f"{size_bytes // unit_bytes}{unit}"
    return f"{size_bytes}B"


def format_duration(duration_s: int) -> str:
    """Write seconds in the units they fill: 5400 is ``1h30m``."""
    parts: list[str] = []
    rest_s = duration_s
    for unit, unit_s in _TIMES.items():
        number, rest_s = divmod(rest_s, unit_s)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"
