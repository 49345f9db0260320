"""Modules that are imported once, before any kernel is forked, and are every kernel's own.

Their pages are shared, and a kernel's first ``import pandas`` takes a few milliseconds. A kernel
sees nothing of it: what was imported here is hidden from ``sys.modules``, and comes back only when
code imports it and the kernel's own search path would find the same file. What was installed, or
written by the user, under the same name wins, as in any Python.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from sandbox.supervisor import rejoining
from sandbox.supervisor.pykernel import laterimports

PRELOAD = "--preload="
"""An argument of the supervisor: modules, between commas."""
MAX_REASON = 300
_PACKAGES = "-packages"
"""How the folders end in which packages are: what is not in one is Python's own, and stays."""
_ALONE = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""By which libraries start no thread when they are loaded: it would be missing in every fork.
Kernels give BLAS its threads back (``rejoining``)."""
_ANOTHER = (
    "{root} is another one now than when this kernel started: it was installed, or written, "
    "since. Restart the kernel, which then imports it."
)

logger = logging.getLogger(__name__)


class Preloaded:
    """What was imported before the forks, hidden; a finder of ``sys.meta_path``."""

    def __init__(self) -> None:
        self.wanted: list[str] = []
        """What is still to be imported."""
        self.loaded: list[str] = []
        self.refused: dict[str, str] = {}
        """Why which of them is not imported."""
        self.is_spoiled = False
        """Whether something was left behind that no fork may have, such as a thread."""
        self._groups: list[dict[str, ModuleType]] = []
        """What each of them brought, by name, with all parts of its packages, whichever brought
        those; emptied once shown."""
        self._places: dict[str, str] = {}
        """Where each was found that is no part of another."""
        self._loading = asyncio.Lock()
        self._held = 0
        self._let = asyncio.Event()
        self._let.set()

    @contextmanager
    def held(self) -> Generator[None]:
        """Import nothing more before the end of the block, whose waits have a time limit: while a
        module is imported nothing else is done, for seconds on a busy machine."""
        self._held += 1
        self._let.clear()
        try:
            yield
        finally:
            self._held -= 1
            if not self._held:
                self._let.set()

    async def ready(self, env: Mapping[str, str]) -> None:
        """Import what is wanted as a kernel with this environment would; other work goes on
        between two modules. What cannot be imported is refused, and the reason is kept.
        """
        async with self._loading:
            if not self.wanted:
                return
            while self.wanted:
                await self._let.wait()
                self._load(self.wanted.pop(0), env)
                await asyncio.sleep(0)
            for name, reason in self.refused.items():
                logger.warning("not preloaded: %s: %s", name, reason)
            rejoining.remember(
                {name: each for group in self._groups for name, each in group.items()}
            )
            for group in self._groups:
                for name in group:
                    del sys.modules[name]
            sys.meta_path.insert(0, self)
            gc.collect()
            gc.freeze()  # what is shared with the kernels stays shared

    def _load(self, name: str, env: Mapping[str, str]) -> None:
        if self.is_spoiled:
            self.refused[name] = "one before it could not be imported"
            return
        if not _is_there(name):
            self.refused[name] = "there is no such module in the image"
            return
        before, threads = set(sys.modules), _threads()
        reason = ""
        try:
            with _surroundings(env):
                importlib.import_module(name)
        except BaseException as exc:  # anything may be raised there
            reason = f"{type(exc).__name__}: {exc}"[:MAX_REASON]
        if _threads() > threads:
            reason = "importing it starts threads, which no fork has"
        if reason:
            self.refused[name] = reason
            self.is_spoiled = True
            return
        new = {each: sys.modules[each] for each in sys.modules if each not in before}
        found = {each: _place(PathFinder.find_spec(each)) for each in new if "." not in each}
        self._places |= {each: place for each, place in found.items() if _PACKAGES in place}
        self._groups.append({})
        for each, module in new.items():
            root = each.partition(".")[0]
            if root in self._places:
                # Also with a package that was there before: its attributes have them anyway.
                home = next((group for group in self._groups if root in group), self._groups[-1])
                home[each] = module
        self.loaded.append(name)

    def is_to_be_undone(self) -> bool:
        """Whether a kernel must not begin with it: it is spoiled, or this process's search path
        has something else under one of the names."""
        return self.is_spoiled or not all(map(self._is_same, self._places))

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Give a hidden module back, with all that was imported with it and before it.

        Raises:
            ImportError: Something that it uses is another one by now.
        """
        at = next((at for at, group in enumerate(self._groups) if name in group), None)
        if at is None or not self._is_same(name.partition(".")[0]):
            return None
        shown = {each: group[each] for group in self._groups[: at + 1] for each in group}
        for root in (each for each in shown if "." not in each):
            if not self._is_same(root):
                raise ImportError(_ANOTHER.format(root=root), name=name)
        for group in self._groups[: at + 1]:
            group.clear()
        sys.modules.update({each: shown[each] for each in shown if each != name})
        return ModuleSpec(name, _Ready(shown, name))

    def invalidate_caches(self) -> None:
        """Nothing is cached."""

    def _is_same(self, root: str) -> bool:
        """Whether the search path finds what was imported."""
        return _place(PathFinder.find_spec(root)) == self._places.get(root)


class _Ready(Loader):
    """A loader of what is loaded."""

    def __init__(self, modules: Mapping[str, ModuleType], name: str) -> None:
        self._modules = modules
        self._module = modules[name]
        self._spec = self._module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module itself."""
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """It has run; it keeps the spec of its own."""
        module.__spec__ = self._spec
        rejoining.rejoin(self._modules)
        laterimports.imported(self._modules)


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _is_there(name: str) -> bool:
    with suppress(ImportError, ValueError, AttributeError):
        return importlib.util.find_spec(name.partition(".")[0]) is not None
    return False


def _place(spec: ModuleSpec | None) -> str:
    """The file of a module, or the folders of a package without one."""
    return (spec.origin or ":".join(spec.submodule_search_locations or ())) if spec else ""


@contextmanager
def _surroundings(env: Mapping[str, str]) -> Generator[None]:
    """The environment of a kernel, and alone in the process."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update({**env, **_ALONE})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


PRELOADED = Preloaded()
