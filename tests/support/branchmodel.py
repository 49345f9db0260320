# ruff: noqa: S311  # the same sequences each time, and no secrets
"""Random sequences of what is done to kernels and their branches, and what must come of each."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

FIRST = "first"
BEGIN = "import random; state = {}; random.seed(0); opened = open('/etc/passwd')"
ALL = "_ = [state, random.random(), opened.tell()]"
MAX_KERNELS = 5
MAX_CHECKPOINTS = 4

Kind = Literal["run", "branch", "checkpoint", "rollback", "drop", "stop"]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done, and what a cell must answer."""

    kind: Kind
    kernel: str
    name: str = ""
    """Of the checkpoint, or of the new kernel."""
    source: str = ""
    expected: Any = None


@dataclass(slots=True)
class Model:
    """What a kernel has: variables, a source of chance, and a file that it reads."""

    state: dict[str, Any]
    chance: random.Random
    at: int = 0

    def copy(self) -> Model:
        """The same again."""
        return Model(copy.deepcopy(self.state), copy.deepcopy(self.chance), self.at)


def sequences(goal: int) -> int:
    """How many are run: as many as ``SANDBOX_BRANCH_SEQUENCES`` says, else a few."""
    return int(os.environ.get("SANDBOX_BRANCH_SEQUENCES", goal))


def sequence(seed: int, length: int = 14) -> Iterator[Step]:
    """A sequence of steps for a kernel named ``first``, which has run ``BEGIN``."""
    chance = random.Random(seed)
    kernels = {FIRST: Model({}, random.Random(0))}
    kept: dict[tuple[str, str], Model] = {}
    for serial in range(length):
        kernel = chance.choice(sorted(kernels))
        own = sorted(name for owner, name in kept if owner == kernel)
        kind = chance.choices(
            ("run", "branch", "checkpoint", "rollback", "drop", "stop"), (8, 3, 3, 4, 1, 1)
        )[0]
        if kind == "branch" and len(kernels) < MAX_KERNELS:
            name = f"kernel-{serial}"
            kernels[name] = kernels[kernel].copy()
            yield Step("branch", kernel, name)
        elif kind == "checkpoint" and len(kept) < MAX_CHECKPOINTS:
            name = f"checkpoint-{serial}"
            kept[kernel, name] = kernels[kernel].copy()
            yield Step("checkpoint", kernel, name)
        elif kind == "rollback" and own:
            name = chance.choice(own)
            kernels[kernel] = kept[kernel, name].copy()
            yield Step("rollback", kernel, name)
        elif kind == "drop" and own:
            name = chance.choice(own)
            del kept[kernel, name]
            yield Step("drop", kernel, name)
        elif kind == "stop" and len(kernels) > 1:
            del kernels[kernel]
            kept = {key: model for key, model in kept.items() if key[0] != kernel}
            yield Step("stop", kernel)
            continue
        else:
            yield Step("run", kernel, source=_change(chance, kernels[kernel]))
        yield _look(kernel, kernels[kernel])
    for kernel, model in kernels.items():
        yield _look(kernel, model)


def _look(kernel: str, model: Model) -> Step:
    expected = [copy.deepcopy(model.state), model.chance.random(), model.at]
    return Step("run", kernel, source=ALL, expected=expected)


def _change(chance: random.Random, model: Model) -> str:
    """A cell that changes something, in the model too."""
    name = chance.choice("abcd")
    number = chance.randrange(1000)
    value = model.state.get(name)
    if chance.random() < 0.2:
        model.at += 7
        return "opened.read(7)"
    if isinstance(value, list):
        value.append(number)
        return f"state[{name!r}].append({number})"
    if isinstance(value, dict):
        value[str(number)] = number
        return f"state[{name!r}][{str(number)!r}] = {number}"
    made: Any = chance.choice(([], {}, number))
    model.state[name] = copy.deepcopy(made)
    return f"state[{name!r}] = {made!r}"
