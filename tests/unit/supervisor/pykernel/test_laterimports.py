"""Something is done to a module once it is imported, by whoever and whenever."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from sandbox.supervisor.pykernel.laterimports import once_imported

NAME = "imported_later"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that modules are imported from; what is imported there is forgotten again."""
    monkeypatch.syspath_prepend(str(tmp_path))
    finders = list(sys.meta_path)
    yield tmp_path
    sys.meta_path[:] = finders
    sys.modules.pop(NAME, None)


def test_a_module_is_acted_on_when_it_has_been_imported(folder: Path) -> None:
    (folder / f"{NAME}.py").write_text("value = 1")
    found: list[int] = []
    once_imported(NAME, lambda module: found.append(module.__dict__["value"]))
    assert found == []
    assert NAME not in sys.modules
    importlib.import_module(NAME)
    assert found == [1]
    importlib.reload(sys.modules[NAME])
    assert found == [1]


def test_nobody_sees_afterwards_that_it_was_waited_for(folder: Path) -> None:
    (folder / f"{NAME}.py").write_text("value = 1")
    finders = list(sys.meta_path)
    once_imported(NAME, lambda _module: None)
    module = importlib.import_module(NAME)
    assert sys.meta_path == finders
    assert type(module.__loader__).__name__ == "SourceFileLoader"
    assert module.__spec__ is not None
    assert module.__spec__.loader is module.__loader__


def test_a_module_that_is_there_is_acted_on_at_once() -> None:
    found: list[ModuleType] = []
    once_imported("json", found.append)
    assert found == [sys.modules["json"]]


def test_a_module_that_is_not_there_is_missing_as_ever_and_may_come(folder: Path) -> None:
    found: list[str] = []
    once_imported(NAME, lambda module: found.append(module.__name__))
    with pytest.raises(ModuleNotFoundError, match=NAME):
        importlib.import_module(NAME)
    (folder / f"{NAME}.py").write_text("")
    importlib.invalidate_caches()
    importlib.import_module(NAME)
    assert found == [NAME]
