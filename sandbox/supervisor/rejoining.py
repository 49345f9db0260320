"""What some modules do when they are imported, done again in the kernel that gets them ready-made.

Each entry is for something that must be a kernel's own: what is random, how many threads there are,
which files and variables were read.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import ModuleType
from typing import Any

_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
"""Where OpenBLAS finds how many it starts, the strongest first."""
_SETTERS = ("scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads")

_COLUMNS = 20
"""What pandas shows in a kernel."""

_remembered: dict[str, Any] = {}

Modules = Mapping[str, ModuleType]


def remember(modules: Modules) -> None:
    """Note what modules have read when they were imported."""
    if (matplotlib := modules.get("matplotlib")) is not None:
        with suppress(Exception):
            _remembered["matplotlibrc"] = matplotlib.matplotlib_fname()


def rejoin(modules: Modules) -> None:
    """Do again what these do when they are imported; what fails is as it was."""
    for name, act in _ACTS.items():
        if name in modules:
            with suppress(Exception):
                act(modules[name])


def _reseed(random: ModuleType) -> None:
    random.seed()


def _restore_threads(_numpy: ModuleType) -> None:
    wanted = next((os.environ[name] for name in _THREADS if os.environ.get(name)), "")
    count = int(wanted) if wanted.isdecimal() else os.cpu_count() or 1
    if count < 2:
        return
    with open("/proc/self/maps") as maps:
        files = {line.split(maxsplit=5)[5].strip() for line in maps if "openblas" in line}
    for file in files:
        library = ctypes.CDLL(file)
        for setter in _SETTERS:
            if hasattr(library, setter):
                getattr(library, setter)(count)


def _read_again(matplotlib: ModuleType) -> None:
    """The file of settings may be another one, as in the kernel's folder; so may the variable."""
    if matplotlib.matplotlib_fname() != _remembered.get("matplotlibrc"):
        matplotlib.rcParams.update(matplotlib.rc_params())
        matplotlib.rcParamsOrig.update(matplotlib.rcParams)
    if backend := os.environ.get("MPLBACKEND"):
        matplotlib.rcParams["backend"] = backend


def _hook(pyplot: ModuleType) -> None:
    pyplot.install_repl_displayhook()


def _outside_of_terminals(pandas: ModuleType) -> None:
    """It was imported where no kernel was, as if in a terminal, by whose width it cuts tables."""
    known = pandas._config.config._registered_options
    name = "display.max_columns"
    if known[name].defval == 0:
        known[name] = known[name]._replace(defval=_COLUMNS)
        pandas.reset_option(name)


_ACTS: dict[str, Callable[[ModuleType], None]] = {
    "numpy.random": _reseed,
    "numpy": _restore_threads,
    "pandas": _outside_of_terminals,
    "matplotlib": _read_again,
    "matplotlib.pyplot": _hook,
}
