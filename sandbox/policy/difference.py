"""Where two policies differ, and which of them is the tighter one there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

from sandbox.policy.extending import loosenings
from sandbox.policy.models import Policy, describe

Direction = Literal["tighter", "wider", "other"]
_ABSENT = object()
_ABOUT_ITSELF = frozenset({"name", "digest", "extends"})


@dataclass(frozen=True, slots=True)
class Change:
    """One key in which two policies differ."""

    key: str
    before: str
    after: str
    direction: Direction
    """Whether the second is tighter there, wider, or neither."""


def difference(first: Policy, second: Policy) -> list[Change]:
    """Every key in which two policies differ, in the order of the file."""
    wider = {_top(each.key) for each in loosenings(second, first)}
    tighter = {_top(each.key) for each in loosenings(first, second)}
    before, after = dict(_flat(describe(first))), dict(_flat(describe(second)))
    return [
        Change(
            ".".join(key),
            _shown(before.get(key, _ABSENT)),
            _shown(after.get(key, _ABSENT)),
            _direction(_top(key) in wider, _top(key) in tighter),
        )
        for key in dict.fromkeys((*before, *after))
        if key[0] not in _ABOUT_ITSELF and before.get(key, _ABSENT) != after.get(key, _ABSENT)
    ]


def _direction(wider: bool, tighter: bool) -> Direction:
    if wider == tighter:
        return "other"
    return "wider" if wider else "tighter"


def _top(key: tuple[str, ...]) -> tuple[str, ...]:
    """The key without the place in a list."""
    return tuple(part for part in key if not part.isdecimal())


def _flat(
    value: dict[str, Any], key: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, item in value.items():
        if key == () and name == "network" and item == "none":
            yield ("network", "allow"), []
        elif key == () and name == "image" and isinstance(item, dict):
            added = cast("dict[str, Any]", item)
            yield ("image",), added["from"]
            yield from ((("image", list_), added[list_]) for list_ in ("pip", "apt"))
        elif isinstance(item, dict):
            yield from _flat(cast("dict[str, Any]", item), (*key, name))
        else:
            yield (*key, name), item


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
