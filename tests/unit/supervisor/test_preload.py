"""Modules that are imported before the forks: hidden, and given back as the kernel finds them."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from sandbox.supervisor import probe, rejoining
from sandbox.supervisor.preload import Preloaded
from sandbox.supervisor.pykernel.laterimports import once_imported

pytestmark = pytest.mark.anyio


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages at the end of the search path, with one module of each kind."""
    folder = tmp_path / "dist-packages"
    (folder / "preload_a").mkdir(parents=True)
    (folder / "preload_a" / "__init__.py").write_text(
        "import os\nseen = os.environ.get('OF_KERNEL')\nimport preload_a.part\n"
    )
    (folder / "preload_a" / "part.py").write_text("value = 1\n")
    (folder / "preload_b.py").write_text("import preload_a, colorsys\n")
    (folder / "preload_raises.py").write_text("1 / 0\n")
    before, finders = dict(sys.modules), list(sys.meta_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    importlib.invalidate_caches()
    yield folder
    sys.meta_path[:] = finders
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


@pytest.fixture
async def loaded(packages: Path) -> Preloaded:
    """Both modules, hidden."""
    made = Preloaded()
    made.wanted = ["preload_a", "preload_b"]
    await made.ready({"OF_KERNEL": "yes", **os.environ})
    return made


async def test_what_was_imported_is_hidden_and_comes_back_as_it_was(loaded: Preloaded) -> None:
    assert loaded.loaded == ["preload_a", "preload_b"]
    assert not [name for name in sys.modules if name.startswith("preload_")]
    b: Any = importlib.import_module("preload_b")
    a: Any = importlib.import_module("preload_a")
    assert b.preload_a is a
    assert a.part.value == 1
    assert a.seen == "yes"
    assert "OF_KERNEL" not in os.environ
    assert type(a.__spec__.loader).__name__ == "SourceFileLoader"
    assert importlib.reload(a) is a


async def test_what_comes_first_comes_back_alone(loaded: Preloaded) -> None:
    importlib.import_module("preload_a.part")
    assert "preload_a" in sys.modules
    assert "preload_b" not in sys.modules


async def test_a_module_of_the_user_wins_over_what_was_imported(
    loaded: Preloaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not loaded.is_to_be_undone()
    (tmp_path / "preload_a.py").write_text("mine = True\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert loaded.is_to_be_undone()
    a: Any = importlib.import_module("preload_a")
    assert a.mine
    with pytest.raises(ImportError, match=r"preload_a is another one now.*Restart the kernel"):
        importlib.import_module("preload_b")


async def test_what_is_not_there_is_refused_and_the_others_are_imported(packages: Path) -> None:
    made = Preloaded()
    made.wanted = ["preload_none", "preload_a"]
    await made.ready({})
    assert made.loaded == ["preload_a"]
    assert made.refused == {"preload_none": "there is no such module in the image"}
    assert not made.is_to_be_undone()


async def test_a_module_that_raises_is_refused_and_kernels_begin_without_any(
    packages: Path,
) -> None:
    made = Preloaded()
    made.wanted = ["preload_raises", "preload_a"]
    await made.ready({})
    assert made.refused["preload_raises"] == "ZeroDivisionError: division by zero"
    assert "preload_a" in made.refused
    assert made.is_to_be_undone()


async def test_a_module_that_starts_a_thread_is_refused(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([["1"], ["1", "2"]])
    monkeypatch.setattr(os, "listdir", lambda _path: next(counts))
    made = Preloaded()
    made.wanted = ["preload_a"]
    await made.ready({})
    assert made.refused["preload_a"] == "importing it starts threads, which no fork has"
    assert made.is_to_be_undone()


async def test_nothing_is_imported_while_something_waits_that_has_a_limit(packages: Path) -> None:
    made = Preloaded()
    made.wanted = ["preload_a", "preload_b"]
    with made.held(), made.held():
        loading = asyncio.ensure_future(made.ready(os.environ))
        for _ in range(5):
            await asyncio.sleep(0)
        assert made.loaded == []
    with anyio.fail_after(10):
        await loading
    assert made.loaded == ["preload_a", "preload_b"]


async def test_the_probe_is_no_longer_waited_for_when_modules_are_imported(
    monkeypatch: pytest.MonkeyPatch, packages: Path
) -> None:
    """An import takes seconds on a busy machine, and a probe that is late fails the session."""
    made = Preloaded()
    made.wanted = ["preload_a"]
    monkeypatch.setattr(probe, "PRELOADED", made)
    told: list[Any] = []
    written: list[int] = []

    def fork(writing: int, _places: list[str]) -> int:
        written.append(os.dup(writing))
        return 0

    async def send_json(facts: Any) -> None:
        told.append((facts, list(made.loaded)))

    monkeypatch.setattr(probe, "_fork", fork)
    child = SimpleNamespace(signal=lambda _number: None)
    children: Any = SimpleNamespace(mark=lambda: None, adopt=lambda *_: child)
    stream: Any = SimpleNamespace(request={}, send_json=send_json, end=lambda: None)
    asking = asyncio.ensure_future(probe.Probe(children).run(stream))
    await asyncio.sleep(0)
    loading = asyncio.ensure_future(made.ready(os.environ))
    for _ in range(5):
        await asyncio.sleep(0)
    os.write(written[0], b"{}")
    os.close(written[0])
    with anyio.fail_after(10):
        await asyncio.gather(asking, loading)
    assert told == [({}, [])]
    assert made.loaded == ["preload_a"]


async def test_without_modules_nothing_is_changed() -> None:
    made = Preloaded()
    await made.ready({})
    assert made not in sys.meta_path
    assert not made.is_to_be_undone()


def test_a_kernel_gets_random_numbers_and_settings_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[Any] = []
    random = SimpleNamespace(seed=lambda: said.append("seeded"))
    matplotlib = SimpleNamespace(
        matplotlib_fname=lambda: next(files),
        rc_params=lambda: {"read": "again"},
        rcParams={},
        rcParamsOrig={},
    )
    pyplot = SimpleNamespace(install_repl_displayhook=lambda: said.append("hooked"))
    files = iter(["/etc/matplotlibrc", "matplotlibrc"])
    monkeypatch.setenv("MPLBACKEND", "module://inline")
    modules: Any = {"numpy.random": random, "matplotlib": matplotlib, "matplotlib.pyplot": pyplot}
    rejoining.remember(modules)
    rejoining.rejoin(modules)
    assert said == ["seeded", "hooked"]
    assert matplotlib.rcParams == {"read": "again", "backend": "module://inline"}


async def test_a_part_that_another_module_brought_is_there_with_its_package(packages: Path) -> None:
    """Python has set the attribute: it would be odd if only ``sys.modules`` had it not."""
    (packages / "preload_a" / "lazy.py").write_text("value = 2\n")
    (packages / "preload_c.py").write_text("import preload_a.lazy\n")
    importlib.invalidate_caches()
    made = Preloaded()
    made.wanted = ["preload_a", "preload_c"]
    await made.ready(os.environ)
    assert made.loaded == ["preload_a", "preload_c"], made.refused
    a: Any = importlib.import_module("preload_a")
    assert sys.modules["preload_a.lazy"] is a.lazy
    assert "preload_c" not in sys.modules
    c: Any = importlib.import_module("preload_c")
    assert c.preload_a is a


async def test_whoever_waits_for_a_module_is_told_when_it_is_given_back(loaded: Preloaded) -> None:
    told: list[str] = []
    once_imported("preload_a.part", lambda module: told.append(module.__name__))
    once_imported("preload_b", lambda module: told.append(module.__name__))
    importlib.import_module("preload_a")
    assert told == ["preload_a.part"]
    importlib.import_module("preload_b")
    assert told == ["preload_a.part", "preload_b"]
