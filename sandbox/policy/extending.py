"""``extends``: a policy over another, which may only take away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from sandbox.policy.access import MountRule, SecretRule
from sandbox.policy.models import EVERY_TOOL, Policy
from sandbox.policy.network import AllowRule, NetworkPolicy
from sandbox.policy.packages import ImagePolicy, joined_image
from sandbox.policy.parts import file_key
from sandbox.policy.units import format_duration, format_size

_STRICTEST_FIRST = {"require": ("gvisor", "any"), "remember": ("never", "session")}
_ABOUT_ITSELF = frozenset({"name", "version", "description", "extends"})
_NEITHER_LOOSER = frozenset({"checkpoint", "pool"})
_NEITHER_LOOSER_BELOW = frozenset({("limits", "freeze")})
"""Keys of which no value allows more than another."""


@dataclass(frozen=True, slots=True)
class Loosening:
    """A key, in the words of the file, where a policy allows more than the one it extends."""

    key: tuple[str, ...]
    reason: str
    remedy: str


def overlay(parent: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    """What a child's file says, over what its parent's says: mappings are joined key by key."""
    joined = dict(parent)
    for key, value in child.items():
        below = joined.get(key)
        if key == "image":
            joined[key] = joined_image(below, value)
        elif isinstance(value, dict) and isinstance(below, dict):
            joined[key] = overlay(below, value)  # pyright: ignore[reportUnknownArgumentType]
        else:
            joined[key] = value
    return joined


def loosenings(child: Policy, parent: Policy) -> list[Loosening]:
    """Every place where ``child`` allows more than ``parent``; empty when it only tightens."""
    return list(_compare(child, parent, ()))


def _compare(child: BaseModel, parent: BaseModel, key: tuple[str, ...]) -> Iterator[Loosening]:
    model = type(child)
    for name in model.model_fields:
        if not key and name in _ABOUT_ITSELF | _NEITHER_LOOSER:
            continue
        ours, theirs = getattr(child, name), getattr(parent, name)
        place = (*key, file_key(model, name))
        if place in _NEITHER_LOOSER_BELOW:
            continue
        match ours:
            case NetworkPolicy() if ours.is_none:
                pass  # whatever else it says, nothing is reachable
            case ImagePolicy():  # what is added is code, which has the rights that all code has
                if ours.base != theirs.base:
                    yield _other(place, repr(ours.base), repr(theirs.base))
            case BaseModel():
                yield from _compare(ours, theirs, place)
            case tuple() if place == ("preload",):
                pass  # code of the image, which may be imported anyway
            case tuple() if place == ("approve", "tools"):
                yield from _lacking(ours, theirs, place)  # pyright: ignore[reportUnknownArgumentType]
            case tuple():
                yield from _compare_lists(ours, theirs, place)  # pyright: ignore[reportUnknownArgumentType]
            case bool():
                if ours and not theirs:
                    yield _other(place, "true", "false")
            case int() | float():
                if ours > theirs:
                    yield Loosening(
                        place,
                        f"{_shown(name, ours)} is more than {_shown(name, theirs)} of the policy "
                        "it extends",
                        f"Write {_shown(name, theirs)} or less.",
                    )
            case str() if name in _STRICTEST_FIRST:
                order = _STRICTEST_FIRST[name]
                if order.index(ours) > order.index(theirs):
                    yield _other(place, repr(ours), repr(theirs))
            case _:
                if ours != theirs:
                    yield _other(place, repr(ours), repr(theirs))


def _compare_lists(
    ours: tuple[Any, ...], theirs: tuple[Any, ...], place: tuple[str, ...]
) -> Iterator[Loosening]:
    match place:
        case ("network", "deny"):
            yield from _lacking(ours, theirs, place)
        case ("network", "allow") | ("mounts",) | ("secrets",):
            for index, part in enumerate(ours):
                if not any(_is_within(part, other) for other in theirs):
                    yield Loosening(
                        (*place, str(index)),
                        f"{_name_of(part)} is not within what the policy it extends allows",
                        "Leave it out, or narrow what that policy has.",
                    )
        case _ if theirs == (EVERY_TOOL,):
            return
        case _:
            # The order is a preference, so another order of the same runtimes may choose a weaker
            # one.
            remaining = iter(theirs)
            if not all(entry in remaining for entry in ours):
                yield Loosening(
                    place,
                    f"{', '.join(ours)} is not a part of {', '.join(theirs)} of the policy it "
                    "extends",
                    "Leave entries out of that list; do not add or reorder.",
                )


def _is_within(ours: Any, theirs: Any) -> bool:
    """Whether a part of a child's list gives no more than a part of its parent's."""
    match ours:
        case AllowRule():
            return ours.is_within(theirs)
        case MountRule():
            return (
                (ours.root, ours.target) == (theirs.root, theirs.target)
                and (not theirs.path or f"{ours.path}/".startswith(f"{theirs.path}/"))
                and ours.read_only >= theirs.read_only
                and (ours.sockets == "refuse" or theirs.sockets == "allow")
            )
        case _:
            return ours == theirs


def _lacking(
    ours: tuple[Any, ...], theirs: tuple[Any, ...], place: tuple[str, ...]
) -> Iterator[Loosening]:
    """What forbids must all still be there."""
    for part in theirs:
        if part not in ours:
            yield Loosening(
                place,
                f"lacks {_name_of(part)} of the policy it extends",
                "Repeat all that is in that list there, and add to it.",
            )


def _name_of(part: Any) -> str:
    match part:
        case MountRule():
            return f"{part.root}/{part.path} at {part.target}"
        case SecretRule():
            return f"{part.name} as {part.delivery}"
        case _:
            return str(part)


def _other(place: tuple[str, ...], ours: str, theirs: str) -> Loosening:
    return Loosening(
        place,
        f"{ours} is not {theirs} of the policy it extends",
        "Leave the key out, or write a policy that extends nothing.",
    )


def _shown(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return format_size(int(value))
    if name.endswith("_s"):
        return format_duration(int(value))
    return f"{value:g}"
