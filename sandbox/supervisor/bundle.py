"""The code of all modules that a supervisor begins with, in one file.

Four hundred files are otherwise looked for, opened and read, which takes longer than to run them.
The image's build writes it, with this file as the program, when nothing in the image changes any
more. Which modules there are to be it is told by a supervisor of the plain image (``--modules``),
in which nothing is installed that a policy has added: of that, no code runs before there is a
session. A module that came out of the bundle is as any other: it has its file, its source and a
loader of files.
"""

from __future__ import annotations

import json
import marshal
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

TELL = "--modules"
FILE = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(__file__))), "bundle")

_VERSION, _BEGIN = 128, 136
"""Where the Python that wrote it ends, and the length of the entries; they begin there."""
_Entry = tuple[str, bool, int, int]
"""A module's file, whether it is a package, and where its code begins and ends in what follows all
entries: made of it once it is needed, and in one piece until then, so that no gaps stay behind."""


class Bundle:
    """A finder of ``sys.meta_path``; what was found is let go of."""

    def __init__(self, entries: dict[str, _Entry], codes: memoryview) -> None:
        self._entries = entries
        self._codes = codes

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where a module is that is in the bundle."""
        entry = self._entries.pop(name, None)
        if entry is None:
            return None
        file, is_package, start, end = entry
        loader = _Loader(name, file, self._codes[start:end])
        spec = ModuleSpec(name, loader, origin=file, is_package=is_package)
        spec.has_location = True
        if is_package:
            spec.submodule_search_locations = [os.path.dirname(file)]
        return spec

    def invalidate_caches(self) -> None:
        """Nothing is cached."""


class _Loader(SourceFileLoader):
    def __init__(self, name: str, file: str, code: memoryview) -> None:
        super().__init__(name, file)
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        """The code, once: from then on it is what loads any file."""
        code: CodeType = marshal.loads(self._code)  # noqa: S302  # the image's own
        del self._code
        setattr(self, "__class__", SourceFileLoader)  # noqa: B010
        return code


def use() -> None:
    """Import from the bundle from now on; harmless where there is none, or another Python's."""
    try:
        with open(FILE, "rb") as file:
            data = memoryview(file.read())
        version, size = data[:_VERSION].tobytes(), int.from_bytes(data[_VERSION:_BEGIN])
        if version != _version():
            return
        entries: dict[str, _Entry] = marshal.loads(data[_BEGIN : _BEGIN + size])  # noqa: S302
    except (OSError, ValueError, TypeError, EOFError):
        return
    finder: Any = Bundle(entries, data[_BEGIN + size :])
    sys.meta_path.insert(0, finder)


def let_go() -> None:
    """Import from the bundle no more."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Bundle)]


def tell() -> None:
    """Print which modules are imported now and came from files, and where such are looked for."""
    specs = {name: vars(module).get("__spec__") for name, module in sys.modules.items()}
    names = sorted(
        name
        for name, spec in specs.items()
        if spec is not None and spec.name == name and type(spec.loader) is SourceFileLoader
    )
    print(json.dumps({"path": sys.path, "modules": names}))


def write() -> None:
    """Put the modules that standard input tells of into it; none of their code runs."""
    told = json.load(sys.stdin)
    entries: dict[str, _Entry] = {}
    codes = b""
    for name in told["modules"]:
        parent = name.rpartition(".")[0]
        if parent and not (parent in entries and entries[parent][1]):
            continue
        where = [os.path.dirname(entries[parent][0])] if parent else told["path"]
        spec = PathFinder.find_spec(name, where)
        if spec is None or spec.origin is None or type(spec.loader) is not SourceFileLoader:
            continue
        source = spec.loader.get_data(spec.origin)
        code = marshal.dumps(spec.loader.source_to_code(source, spec.origin))
        is_package = spec.submodule_search_locations is not None
        entries[name] = (spec.origin, is_package, len(codes), len(codes) + len(code))
        codes += code
    index = marshal.dumps(entries)
    with open(FILE, "wb") as file:
        file.write(_version() + len(index).to_bytes(_BEGIN - _VERSION) + index + codes)


def _version() -> bytes:
    return sys.version.encode()[:_VERSION].ljust(_VERSION)


if __name__ == "__main__":
    write()
