"""What ipykernel imports at once and a kernel seldom needs, imported once it is asked for.

Half of what would be imported is for clients and managers of kernels, and for reading dates. None
of that is missing: a package stands there whose own code runs when something of it is wanted, and
functions stand there that fetch the real ones when they are called. Called before anything of
Jupyter's is imported; where that is not as it is known, all is imported as usual.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_CONNECT = "ipykernel.connect"
_CONNECTING = (
    *("write_connection_file", "get_connection_file", "get_connection_info"),
    "connect_qtconsole",
)
_DATES = {"dateutil": (), "dateutil.parser": ("isoparse",), "dateutil.tz": ("tzlocal",)}
_OURS = ("ipykernel", "jupyter_client")


def spare() -> None:
    """Have Jupyter's modules import less; does nothing where they are not as they are known."""
    if any(name.partition(".")[0] in _OURS for name in sys.modules):
        return
    try:
        _later("jupyter_client")
        with _standing_in(_DATES):
            importlib.import_module("jupyter_client.jsonutil")
        with _standing_in({_CONNECT: _CONNECTING}):
            ipykernel = importlib.import_module("ipykernel")
            importlib.import_module("ipykernel.zmqshell")
        setattr(ipykernel, "connect", _later(_CONNECT))  # noqa: B010  # as an import does
    except (ImportError, AttributeError):
        for name in [each for each in sys.modules if each.partition(".")[0] in _OURS]:
            del sys.modules[name]


class _Later(ModuleType):
    """A module whose code runs when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__all__", "__version__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        _run(self)
        return getattr(self, name)

    def __dir__(self) -> list[str]:
        _run(self)
        return dir(self)


def _run(module: ModuleType) -> None:
    module.__class__ = ModuleType  # from here on it is a module as any other
    spec = module.__spec__
    try:
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module(module)
    except BaseException:
        module.__class__ = _Later
        raise


def _later(name: str) -> ModuleType:
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ImportError(f"there is no {name}", name=name)
    module = importlib.util.module_from_spec(spec)
    module.__class__ = _Later
    sys.modules[name] = module
    return module


@contextmanager
def _standing_in(modules: dict[str, tuple[str, ...]]) -> Generator[None]:
    """Modules of these names with such functions, to the end of the block."""
    for name, functions in modules.items():
        module = sys.modules[name] = ModuleType(name)
        module.__path__ = []
        vars(module).update({each: _fetching(name, each) for each in functions})
        vars(module)["__all__"] = list(functions)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


def _fetching(module: str, name: str) -> Callable[..., Any]:
    def fetch(*args: Any, **options: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*args, **options)

    fetch.__name__ = fetch.__qualname__ = name
    fetch.__module__ = module
    return fetch
