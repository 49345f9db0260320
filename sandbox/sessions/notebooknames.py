"""What callers call the notebooks of a session, and which one each of them means without a name.

Names are a caller's own, as its default session is: two conversations of one principal may call
different notebooks alike, and neither sees the other's names. They are kept in memory only.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import count

from sandbox.errors import Conflict, NotFound, QuotaExceeded
from sandbox.outputs.plain import escaped

MAX_NAMES = 64
"""Of one caller in one session."""
MAX_CALLERS = 64
"""Of one session, whose names are kept; those of who did nothing for longest give way."""
MAX_TOLD = 8
_uses = count(1)
_USE = "use_notebook(notebook_name=…, notebook_path=…)"


@dataclass(frozen=True, slots=True)
class Named:
    """A notebook that a caller has a name for."""

    name: str
    path: str
    """Absolute."""
    is_current: bool
    """Whether its caller means it where no name is given."""


@dataclass(slots=True)
class _Names:
    paths: dict[str, str] = field(default_factory=dict[str, str])
    """By name; the one that was used last is the last."""
    uses: dict[str, int] = field(default_factory=dict[str, int])
    """Which use of all each name's latest was."""
    current: str = ""


class NotebookNames:
    """The names that the callers of one session gave its notebooks."""

    def __init__(self) -> None:
        self._callers: OrderedDict[str, _Names] = OrderedDict()

    def check(self, key: str, name: str, path: str) -> None:
        """Refuse a name that a caller cannot give a notebook.

        Args:
            key: Tells the caller from the others of the session.

        Raises:
            Conflict: It is the name of another one.
            QuotaExceeded: The caller has as many as may be.
        """
        paths = self._of(key).paths
        if (known := paths.get(name, path)) != path:
            raise Conflict(
                f"You call another notebook {_shown(name)}: {escaped(known[:200])}.",
                remedy="Give this one another name, or unuse_notebook that one first.",
            )
        if name not in paths and len(paths) >= MAX_NAMES:
            raise QuotaExceeded(
                f"You use {len(paths)} notebooks, as many as may be.",
                remedy="unuse_notebook ends the use of one.",
            )

    def use(self, key: str, name: str, path: str) -> None:
        """Give a notebook a name, and have its caller mean it from now on.

        Raises:
            Conflict, QuotaExceeded: As :meth:`check` does.
        """
        self.check(key, name, path)
        names = self._callers.setdefault(key, _Names())
        names.paths.pop(name, None)
        names.paths[name], names.uses[name], names.current = path, next(_uses), name
        self._callers.move_to_end(key)
        while len(self._callers) > MAX_CALLERS:
            self._callers.popitem(last=False)

    def find(self, key: str, name: str = "") -> Named:
        """The notebook that a caller calls so; the current one when empty.

        Raises:
            NotFound: It calls none so; after a restart of the controller nobody does.
        """
        names = self._of(key)
        wanted = name or names.current
        if wanted in names.paths:
            self._callers.move_to_end(key)
            return Named(wanted, names.paths[wanted], wanted == names.current)
        cause = f"You use no notebook {_shown(name)}." if name else "You use no notebook yet."
        there = ", ".join(_shown(each) for each in [*names.paths][-MAX_TOLD:])
        raise NotFound(
            cause, remedy=f"{_USE} opens one; you use {there}." if there else f"{_USE} opens one."
        )

    def release(self, key: str, name: str) -> str:
        """Take a name back, and say which notebook is the current one then; empty for none.

        Raises:
            NotFound: The caller calls none so.
        """
        found = self.find(key, name)
        names = self._callers[key]
        del names.paths[found.name], names.uses[found.name]
        if found.is_current:
            names.current = next(reversed(names.paths), "")
        if not names.paths:
            del self._callers[key]
        return names.current

    def latest(self, key: str, name: str = "") -> int:
        """Which use of all was the latest of a caller's notebook of that name, or of its current
        one; 0 when it has none."""
        names = self._of(key)
        return names.uses.get(name or names.current, 0)

    def of(self, key: str) -> list[Named]:
        """The notebooks that a caller has names for, in the order of their use."""
        names = self._of(key)
        return [Named(name, path, name == names.current) for name, path in names.paths.items()]

    def is_used(self, path: str) -> bool:
        """Whether any caller has a name for the notebook at a path."""
        return any(path in names.paths.values() for names in self._callers.values())

    def pass_on(self, key: str, to: str) -> None:
        """Give what a caller called its notebooks to the one that goes on with its session; what
        that one has named itself stays."""
        left = self._callers.pop(key, None)
        if left is None:
            return
        own = self._callers.setdefault(to, _Names())
        paths = {**left.paths, **own.paths}
        own.paths = dict([*paths.items()][-MAX_NAMES:])
        own.uses = {name: own.uses.get(name) or left.uses[name] for name in own.paths}
        own.current = own.current or (left.current if left.current in own.paths else "")

    def _of(self, key: str) -> _Names:
        return self._callers.get(key) or _Names()


def _shown(name: str) -> str:
    return f"'{escaped(name[:64])}'"
