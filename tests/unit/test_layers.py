"""Imports point down only, and a foreign package is imported where it belongs."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "sandbox"

# The longest prefix counts. A module may import what is on its own layer or below.
LAYERS = {
    "sandbox": 0,  # the package itself: its version
    "sandbox.answers": 0,
    "sandbox.errors": 0,
    "sandbox.errorgroups": 0,
    "sandbox.database": 0,
    "sandbox.nofollow": 0,
    "sandbox.pipindex": 0,
    "sandbox.values": 0,
    "sandbox.resources": 0,
    "sandbox.toolsets": 0,
    "sandbox.bulkheads": 0,
    "sandbox.link": 0,
    "sandbox.outputs": 0,
    "sandbox.audit": 1,
    "sandbox.config": 1,
    "sandbox.container.images": 1,
    "sandbox.container.roots": 1,
    "sandbox.policy": 1,
    "sandbox.secrets": 1,
    "sandbox.container": 2,
    "sandbox.runtimes": 3,
    "sandbox.collaboration": 4,
    "sandbox.commands": 4,
    "sandbox.container.connection": 4,
    "sandbox.container.freezer": 4,
    "sandbox.container.sandbox": 4,
    "sandbox.egress": 4,
    "sandbox.files": 4,
    "sandbox.kernels": 4,
    "sandbox.notebooks": 4,
    "sandbox.terminals": 4,
    "sandbox.testing": 4,
    "sandbox.workspaces": 4,
    "sandbox.sessions": 5,
    "sandbox.broker": 6,
    "sandbox.server": 6,
    "sandbox.cli": 7,
    "sandbox.jupyter": 7,
    "sandbox.__main__": 7,
}
# Rooms of one layer that must not know each other.
APART = (*("commands", "egress", "files", "kernels", "notebooks", "terminals", "workspaces"),)

# Where a foreign package may be imported.
FOREIGN = {
    "h11": ("sandbox.egress", "sandbox.server"),
    "wsproto": ("sandbox.server", "sandbox.cli"),
    "idna": ("sandbox.egress",),
    "docker": ("sandbox.runtimes.docker",),
    "requests": ("sandbox.runtimes.docker",),
    "urllib3": ("sandbox.runtimes.docker",),
    "tenacity": ("sandbox.runtimes",),
    "jupyter_client": ("sandbox.jupyter", "sandbox.supervisor.pykernel"),
    "jupyter_server": ("sandbox.jupyter",),
    "tornado": ("sandbox.jupyter", "sandbox.supervisor.pykernel"),
    "traitlets": ("sandbox.jupyter", "sandbox.supervisor"),
    "nbformat": ("sandbox.notebooks",),
    "pycrdt": ("sandbox.collaboration",),
    "jupyter_ydoc": ("sandbox.collaboration",),
    "fastapi": ("sandbox.server",),
    "mcp": ("sandbox.server", "sandbox.cli"),
    "starlette": ("sandbox.server",),
    "jwt": ("sandbox.server",),
    "cryptography": ("sandbox.server",),
    "httpx2": ("sandbox.server", "sandbox.cli"),
    "uvicorn": ("sandbox.server", "sandbox.cli"),
    "typer": ("sandbox.cli",),
    "rich": ("sandbox.cli",),
    "pyte": ("sandbox.terminals",),
    "yaml": ("sandbox.policy", "sandbox.config", "sandbox.cli"),
    "zmq": ("sandbox.jupyter", "sandbox.supervisor.bashkernel"),
    "ipykernel": ("sandbox.supervisor",),
    "IPython": ("sandbox.supervisor",),
}
# Copied into the images: these modules and what the supervisor imports.
INSIDE = ("sandbox.errors", "sandbox.link", "sandbox.nofollow")
INSIDE_FOREIGN = {"zmq", "ipykernel", "IPython", "jupyter_client", "tornado", "traitlets"}

# Rooms whose classes were not yet looked at for the two ways of waiting.
UNMENDED = ()


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(name: str) -> str:
    return ".".join(name.split(".")[:2])


MODULES = {
    module_name(path): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "_data" not in path.relative_to(PACKAGE).parts
}
ROOMS = {own: list(names) for own, names in groupby(sorted(MODULES, key=room), key=room)}


@cache
def parsed(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text())


@cache
def imports(name: str) -> frozenset[str]:
    """The modules that one imports, wherever in it; ``from a import b`` is a.b when that is one."""
    return frozenset(imported(name))


def imported(name: str) -> Iterator[str]:
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            base = node.module or ""
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in MODULES else base


def layer(name: str) -> int | None:
    while name:
        if name in LAYERS:
            return LAYERS[name]
        name = name.rpartition(".")[0]
    return None


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def is_inside(name: str) -> bool:
    return within(name, ("sandbox.supervisor", *INSIDE))


def check_layers(name: str) -> None:
    if within(name, ("sandbox.supervisor",)):
        allowed = ("sandbox.supervisor", *INSIDE)
        strangers = {
            each for each in imports(name) if within(each, ("sandbox",)) and each != "sandbox"
        }
        assert [each for each in sorted(strangers) if not within(each, allowed)] == [], name
        return
    own = layer(name)
    first = name.split(".")[1] if "." in name else ""
    assert first == "" or f"sandbox.{first}" in LAYERS, f"{name} stands on no layer"
    assert own is not None
    for other in imports(name):
        if not within(other, ("sandbox",)):
            continue
        assert not within(other, ("sandbox.supervisor",)), f"{name} imports the far side"
        above = layer(other)
        assert above is not None
        assert above <= own, f"{name} imports {other} from above"
        second = other.split(".")[1] if "." in other else ""
        assert second in ("", first) or second != "testing", f"{name} imports a fake"
        if first in APART and second in APART:
            assert first == second, f"{name} and {other} shall not know each other"


@pytest.mark.parametrize("names", ROOMS.values(), ids=ROOMS)
def test_a_module_imports_only_what_is_on_its_layer_or_below(names: list[str]) -> None:
    for name in names:
        check_layers(name)


@pytest.mark.parametrize("names", ROOMS.values(), ids=ROOMS)
def test_a_foreign_package_is_imported_only_where_it_belongs(names: list[str]) -> None:
    for name, other in ((each, other) for each in names for other in imports(each)):
        package = other.partition(".")[0]
        if package in FOREIGN:
            assert within(name, FOREIGN[package]), f"{name} imports {package}"
        if is_inside(name):
            known = package in sys.stdlib_module_names or package == "sandbox"
            known = known or (within(name, ("sandbox.supervisor",)) and package in INSIDE_FOREIGN)
            assert known, f"{name} is copied into the images and imports {package}"


def test_every_layer_that_is_named_exists() -> None:
    gone = [name for name in (*LAYERS, *INSIDE) if name not in MODULES]
    assert gone == []


def connected(graph: dict[str, set[str]]) -> list[set[str]]:
    """The modules that reach each other, by Kosaraju's two walks; those on their own left out."""

    def walk(name: str, edges: dict[str, set[str]], seen: set[str]) -> list[str]:
        seen.add(name)
        below = [
            each
            for other in sorted(edges[name] - seen)
            if other not in seen
            for each in walk(other, edges, seen)
        ]
        return [*below, name]

    seen: set[str] = set()
    order = [each for name in graph if name not in seen for each in walk(name, graph, seen)]
    back = {name: {other for other in graph if name in graph[other]} for name in graph}
    seen = set()
    found = [set(walk(name, back, seen)) for name in reversed(order) if name not in seen]
    return [each for each in found if len(each) > 1]


def test_modules_that_reach_each_other_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": set[str]()}
    assert connected(graph) == [{"a", "b", "c"}]


def test_no_modules_import_each_other_in_a_circle_not_even_for_their_types() -> None:
    graph = {name: {each for each in imports(name) if each in MODULES} for name in MODULES}
    assert connected(graph) == []


def private_names(name: str) -> Iterator[str]:
    """The names with an underscore that a module takes from another of ours, as ``module.name``."""
    tree = parsed(name)
    taken: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and within(node.module or "", ("sandbox",)):
            for alias in node.names:
                taken[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    named = [*taken.values()]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            named += [f"{taken[each]}.{node.attr}" for each in [node.value.id] if each in taken]
    for each in named:
        if any(part.startswith("_") and not part.startswith("__") for part in each.split(".")):
            yield each


@pytest.mark.parametrize("own", ROOMS)
def test_no_room_takes_a_private_name_of_another(own: str) -> None:
    taken = [
        (name, each) for name in ROOMS[own] for each in private_names(name) if room(each) != own
    ]
    assert taken == []


def loops(tree: ast.AST, names: dict[str, str]) -> set[str]:
    """Which of asyncio and anyio are used in a part of a module."""
    return {
        names[node.id] for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in names
    }


def loop_names(tree: ast.Module) -> dict[str, str]:
    """The names that a module has from asyncio and anyio, and from which."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                package = alias.name.partition(".")[0]
                names[alias.asname or package] = package
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = node.module.partition(".")[0]
    return {name: package for name, package in names.items() if package in ("asyncio", "anyio")}


@pytest.mark.parametrize("names", ROOMS.values(), ids=ROOMS)
def test_no_class_waits_in_two_ways(names: list[str]) -> None:
    """asyncio and anyio cancel differently; within one class a reader has to know one of them."""
    for name in (each for each in names if not within(each, UNMENDED)):
        loops_of = loop_names(parsed(name))
        classes = [node for node in ast.walk(parsed(name)) if isinstance(node, ast.ClassDef)]
        assert [each.name for each in classes if len(loops(each, loops_of)) > 1] == [], name


def test_a_class_that_waits_in_two_ways_is_found() -> None:
    tree = ast.parse(
        "import asyncio\nfrom anyio import sleep\n"
        "class Both:\n  def f(self): asyncio.Event(), sleep(1)\n"
    )
    assert loops(tree.body[2], loop_names(tree)) == {"asyncio", "anyio"}
