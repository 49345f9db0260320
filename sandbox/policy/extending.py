"""``extends``: a policy over another, which may only take away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from sandbox.policy.models import EVERY_TOOL, Policy, file_key
from sandbox.policy.units import format_duration, format_size

_ABOUT_ITSELF = frozenset({"name", "version", "description", "extends"})


@dataclass(frozen=True, slots=True)
class Loosening:
    """A place where a policy allows more than the one it extends.

    Args:
        key: The key path, in the words of the file.
        reason: What it allows, and what the other does.
        remedy: What it may say.
    """

    key: tuple[str, ...]
    reason: str
    remedy: str


def overlay(parent: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    """What a child's file says, over what its parent's says: mappings are joined key by key."""
    joined = dict(parent)
    for key, value in child.items():
        below = joined.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
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
        if not key and name in _ABOUT_ITSELF:
            continue
        ours, theirs = getattr(child, name), getattr(parent, name)
        place = (*key, file_key(model, name))
        match ours:
            case BaseModel():
                yield from _compare(ours, theirs, place)
            case tuple():
                yield from _compare_lists(ours, theirs, place)  # pyright: ignore[reportUnknownArgumentType]
            case int() | float():
                if ours > theirs:
                    yield Loosening(
                        place,
                        f"{_shown(name, ours)} is more than {_shown(name, theirs)} of the policy "
                        "it extends",
                        f"Write {_shown(name, theirs)} or less.",
                    )
            case _:
                if ours != theirs:
                    yield Loosening(
                        place,
                        f"{ours!r} is not {theirs!r} of the policy it extends",
                        "Leave the key out, or write a policy that extends nothing.",
                    )


def _compare_lists(
    ours: tuple[str, ...], theirs: tuple[str, ...], place: tuple[str, ...]
) -> Iterator[Loosening]:
    if theirs == (EVERY_TOOL,):
        return
    # The order is a preference, so another order of the same runtimes may choose a weaker one.
    remaining = iter(theirs)
    if not all(entry in remaining for entry in ours):
        yield Loosening(
            place,
            f"{', '.join(ours)} is not a part of {', '.join(theirs)} of the policy it extends",
            "Leave entries out of that list; do not add or reorder.",
        )


def _shown(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return format_size(int(value))
    if name.endswith("_s"):
        return format_duration(int(value))
    return f"{value:g}"
