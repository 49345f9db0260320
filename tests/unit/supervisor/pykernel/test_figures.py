"""Figures are shown by ``show()`` under a backend without a display, whose module comes later."""

from __future__ import annotations

import base64
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.supervisor.pykernel import figures

from ....support.shells import plain_shell

PNG = b"\x89PNG of a figure"
PACKAGE = {
    "__init__.py": "backend = 'agg'\ndef get_backend(): return backend",
    "backend_bases.py": """
class FigureManagerBase:
    asked = 0
    def __init__(self, canvas): self.canvas = canvas
    def show(self): type(self).asked += 1
""",
    "figure.py": f"""
class Figure:
    axes, lines, dpi, stale = [1], [], 100, True
    def __init__(self): self.canvas = self.figure = self
    def get_facecolor(self): return 'white'
    get_edgecolor = get_facecolor
    def print_figure(self, file, **options):
        self.stale = True
        file.write({PNG!r})
    def __repr__(self): return '<Figure size 640x480 with 1 Axes>'
""",
}


class Shown:
    """The bundles that were published."""

    def __init__(self) -> None:
        self.bundles: list[dict[str, Any]] = []

    def publish(self, data: dict[str, Any], **_more: Any) -> None:
        self.bundles.append(data)


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shown]:
    """What is published, with a matplotlib that may be imported."""
    (tmp_path / "matplotlib").mkdir()
    for name, code in PACKAGE.items():
        (tmp_path / "matplotlib" / name).write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    finders = list(sys.meta_path)
    yield Shown()
    sys.meta_path[:] = finders
    for name in [each for each in sys.modules if each.partition(".")[0] == "matplotlib"]:
        del sys.modules[name]


def managed() -> tuple[Any, Any]:
    """A figure and its manager, with matplotlib imported for it."""
    figure = importlib.import_module("matplotlib.figure").Figure()
    return figure, importlib.import_module("matplotlib.backend_bases").FigureManagerBase(figure)


@pytest.fixture
def shell(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with plain_shell() as made:
        monkeypatch.setattr(made.display_pub, "publish", shown.publish)
        figures.install(made)
        assert "matplotlib" not in sys.modules
        yield made


@pytest.fixture
def installed(shell: Any, shown: Shown) -> Shown:
    assert shell.display_pub.publish == shown.publish
    return shown


def test_a_figure_is_shown_once_until_it_changes(installed: Shown) -> None:
    figure, manager = managed()
    manager.show()
    manager.show()
    (bundle,) = installed.bundles
    assert base64.b64decode(bundle["image/png"]) == PNG
    assert bundle["text/plain"] == repr(figure)
    figure.stale = True
    manager.show()
    assert len(installed.bundles) == 2


def test_an_empty_figure_is_not_shown(installed: Shown) -> None:
    figure, manager = managed()
    figure.axes = []
    manager.show()
    assert installed.bundles == []


def test_the_backend_of_the_kernel_shows_its_figures_itself(installed: Shown) -> None:
    _, manager = managed()
    sys.modules["matplotlib"].__dict__["backend"] = "module://matplotlib_inline.backend_inline"
    manager.show()
    assert installed.bundles == []
    assert manager.asked == 1


def test_a_figure_is_a_picture_as_the_value_of_a_cell(shell: Any) -> None:
    figure, _ = managed()
    data, _ = shell.display_formatter.format(figure)
    assert base64.b64decode(data["image/png"]) == PNG


def test_what_a_backend_says_of_its_pictures_stands(shell: Any) -> None:
    figure, _ = managed()
    pictures = shell.display_formatter.formatters["image/png"]
    pictures.pop(type(figure), None)  # as IPython does for %config InlineBackend.figure_formats
    data, _ = shell.display_formatter.format(figure)
    assert "image/png" not in data
