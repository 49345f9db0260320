"""Figures are shown by ``plt.show()`` also where a program has chosen a backend without a display.

``matplotlib.use("Agg")`` is what programs do that are to run anywhere, and ``plt.show()`` then does
nothing and says nothing. In a kernel there is somebody to see the figure.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any
from weakref import WeakSet

from sandbox.supervisor.pykernel.laterimports import once_imported


def install(shell: Any) -> None:
    """Have figures shown once matplotlib is there; as values of cells under every backend."""
    pictures = shell.display_formatter.formatters["image/png"]
    pictures.for_type_by_name("matplotlib.figure", "Figure", _picture)
    once_imported("matplotlib.backend_bases", lambda module: _show_figures(module, shell))


def _show_figures(backend_bases: ModuleType, shell: Any) -> None:
    manager: Any = backend_bases.__dict__["FigureManagerBase"]
    before = manager.show
    shown: WeakSet[Any] = WeakSet()
    """The figures that somebody has seen; one that was changed since then is stale."""

    def show(self: Any) -> None:
        """Show the figure in the result of the cell; backends with a display do so themselves."""
        figure = self.canvas.figure
        if _is_of_the_kernel(sys.modules["matplotlib"].get_backend()):
            before(self)
        elif figure not in shown or figure.stale:
            shown.add(figure)
            if (picture := _picture(figure)) is not None:
                shell.display_pub.publish({"text/plain": repr(figure), "image/png": picture})
                figure.stale = False

    manager.show = show


def _is_of_the_kernel(backend: str) -> bool:
    """Whether a backend shows figures in the results of cells by itself."""
    return "inline" in backend or "ipympl" in backend


def _picture(figure: Any) -> str | None:
    """A figure as PNG in base64; None for one that has nothing on it."""
    from IPython.core import pylabtools  # which is slow to import, and not needed before

    draw: Any = pylabtools.__dict__["print_figure"]
    return draw(figure, fmt="png", base64=True)
