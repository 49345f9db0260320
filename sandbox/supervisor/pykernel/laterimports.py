"""Does something to a module once it is imported, and imports nothing itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

Act = Callable[[ModuleType], None]


def once_imported(name: str, act: Act) -> None:
    """Do something to a module: now if it is there, else as soon as it has been imported."""
    if (module := sys.modules.get(name)) is not None:
        act(module)
    else:
        sys.meta_path.insert(0, _Waiting(name, act))


def imported(modules: Mapping[str, ModuleType]) -> None:
    """Tell whoever waits for one of these that it is there, though nothing has looked for it."""
    for finder in list(sys.meta_path):
        if isinstance(finder, _Waiting):
            finder.given(modules)


class _Waiting(MetaPathFinder):
    """Waits for one module, and finds none."""

    def __init__(self, name: str, act: Act) -> None:
        self._name = name
        self._act = act

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where a module is: for the one that is waited for, with what is done to it."""
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            sys.meta_path.insert(0, self)  # it may be installed later
            return None
        spec.loader = _Acting(spec.loader, self._act)
        return spec

    def given(self, modules: Mapping[str, ModuleType]) -> None:
        """Take the module, if it is among these."""
        if (module := modules.get(self._name)) is not None:
            sys.meta_path.remove(self)
            self._act(module)


class _Acting(Loader):
    """Loads a module as another loader does, and then does something to it."""

    def __init__(self, loader: Loader, act: Act) -> None:
        self._loader = loader
        self._act = act

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """The module, still empty."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Fill it; afterwards nobody sees that it was waited for."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._act(module)
