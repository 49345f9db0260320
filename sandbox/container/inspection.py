"""The engine's word on a container, compared with its spec."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, cast

from sandbox.container.checks import Check, check, shown
from sandbox.container.features import Feature, values_of, wishes
from sandbox.container.spec import ContainerSpec

_IN_ORDER = frozenset({Feature.COMMAND, Feature.RESOLVER})


def inspected(
    spec: ContainerSpec,
    facts: Mapping[str, Any] | None,
    reports: AbstractSet[Feature],
    held: Mapping[str, int | None] | None = None,
) -> tuple[Check, ...]:
    """Compare what the engine says that it applied with a spec, feature by feature, and the limits
    with what the host's kernel holds the container to, where that can be read.

    What it cannot report is not in the answer: the proof inside has to decide that. What it can
    report and does not is a difference, and so is what nobody asked for.
    """
    return (*_compared(spec, facts or {}, reports), *_held(spec, held or {}))


def mismatches(
    spec: ContainerSpec,
    facts: Mapping[str, Any] | None,
    reports: AbstractSet[Feature],
    held: Mapping[str, int | None] | None = None,
) -> list[str]:
    """The same: a sentence for each difference; empty when everything is as it must be."""
    return [
        f"{each.name}: is {each.found}, must be {each.expected}"
        for each in inspected(spec, facts, reports, held)
        if not each.ok
    ]


def _held(spec: ContainerSpec, held: Mapping[str, int | None]) -> Iterator[Check]:
    for name, limit in (("memory", spec.memory_bytes), ("pids", spec.pids_limit)):
        if name in held:
            found = held[name]
            ok = found is not None and found <= limit
            yield check(f"host.{name}", f"at most {limit}", str(found or "no limit"), ok=ok)


def _compared(
    spec: ContainerSpec, facts: Mapping[str, Any], reports: AbstractSet[Feature]
) -> Iterator[Check]:
    wished = wishes(spec)
    for name, value in values_of(spec).items():
        found = facts.get(name)
        if found is not None:
            yield _compare(name, value, found)
        elif name in wished and name in reports:
            yield check(name, shown(value), "not told by the engine", ok=False)
    for name in sorted(facts.keys() - set(Feature)):
        if facts[name]:
            yield check(name, "nothing of that kind", shown(facts[name]), ok=False)


def _compare(name: Feature, value: Any, found: Any) -> Check:
    ours, theirs = _canonical(name, value), _canonical(name, found)
    told = shown(theirs)
    if isinstance(ours, list) and isinstance(theirs, list):
        missing = [each for each in cast("list[Any]", ours) if each not in theirs]
        extra = [each for each in cast("list[Any]", theirs) if each not in ours]
        if missing or extra:
            told = f"without {shown(missing)} and with {shown(extra)} besides"
    return check(name, shown(ours), told, ok=ours == theirs)


def _canonical(name: Feature, value: Any) -> Any:
    """A fact in the one form in which it is compared: what JSON keeps, sets in one order."""
    if name == Feature.SECCOMP:
        try:
            value = json.loads(value)
        except (TypeError, ValueError):
            return value
    plain: Any = json.loads(json.dumps(value, sort_keys=True, default=str))
    if name in _IN_ORDER or not isinstance(value, list | tuple):
        return plain
    return sorted(plain, key=lambda each: json.dumps(each, sort_keys=True))
