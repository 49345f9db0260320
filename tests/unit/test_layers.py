"""Imports point down only, and a foreign package is imported where it belongs."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "sandbox"

# The longest prefix counts. A module may import what is on its own layer or below.
LAYERS = {
    "sandbox": 0,  # the package itself: its version
    "sandbox.errors": 0,
    "sandbox.outputs": 0,
    "sandbox.plaintext": 0,
    "sandbox.streamtext": 0,
    "sandbox.diff": 0,
    "sandbox.headtail": 0,
    "sandbox.mime": 0,
    "sandbox.wire": 0,
    "sandbox.mux": 0,
    "sandbox.stream": 0,
    "sandbox.link": 0,
    "sandbox.places": 0,
    "sandbox.redaction": 0,
    "sandbox.resources": 0,
    "sandbox.denials": 0,
    "sandbox.pipindex": 0,
    "sandbox.database": 0,
    "sandbox.roots": 1,
    "sandbox.config": 1,
    "sandbox.audit": 1,
    "sandbox.policy": 1,
    "sandbox.images": 1,
    "sandbox.secretstore": 1,
    "sandbox.spec": 2,
    "sandbox.mounts": 2,
    "sandbox.runtimes": 3,
    "sandbox.kernels": 4,
    "sandbox.terminals": 4,
    "sandbox.processes": 4,
    "sandbox.files": 4,
    "sandbox.proof": 4,
    "sandbox.egress": 4,
    "sandbox.workspaces": 4,
    "sandbox.sessions": 5,
    "sandbox.broker": 6,
    "sandbox.server": 6,
    "sandbox.cli": 7,
    "sandbox.__main__": 7,
}
# Modules of one layer that must not know each other.
APART = ("kernels", "terminals", "processes", "files", "proof", "egress", "workspaces")

# Where a foreign package may be imported.
FOREIGN = {
    "h11": ("sandbox.egress",),
    "idna": ("sandbox.egress",),
    "docker": ("sandbox.runtimes.docker",),
    "requests": ("sandbox.runtimes.docker",),
    "urllib3": ("sandbox.runtimes.docker",),
    "tenacity": ("sandbox.runtimes",),
    "jupyter_client": ("sandbox.kernels",),
    "mcp": ("sandbox.server", "sandbox.cli"),
    "starlette": ("sandbox.server",),
    "jwt": ("sandbox.server",),
    "cryptography": ("sandbox.server",),
    "httpx2": ("sandbox.server",),
    "uvicorn": ("sandbox.server", "sandbox.cli"),
    "typer": ("sandbox.cli",),
    "rich": ("sandbox.cli",),
    "pyte": ("sandbox.terminals",),
    "yaml": ("sandbox.policy", "sandbox.config", "sandbox.cli"),
    "zmq": ("sandbox.supervisor",),
    "ipykernel": ("sandbox.supervisor",),
    "IPython": ("sandbox.supervisor",),
}
# Copied into the images: these modules and what the supervisor imports.
INSIDE = ("sandbox.errors", "sandbox.wire", "sandbox.mux", "sandbox.stream", "sandbox.link")
INSIDE += ("sandbox.places",)
INSIDE_FOREIGN = {"zmq", "ipykernel", "IPython", "traitlets"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "_data" not in path.relative_to(PACKAGE).parts
}


def imports(name: str) -> Iterator[str]:
    """The modules that one imports, wherever in it; ``from a import b`` is a.b when that is one."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
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


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_is_on_its_layer_or_below(name: str) -> None:
    if within(name, ("sandbox.supervisor",)):
        allowed = ("sandbox.supervisor", *INSIDE)
        strangers = {
            each for each in imports(name) if within(each, ("sandbox",)) and each != "sandbox"
        }
        assert [each for each in sorted(strangers) if not within(each, allowed)] == []
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
        if first in APART and second in APART:
            assert first == second, f"{name} and {other} shall not know each other"


@pytest.mark.parametrize("name", MODULES)
def test_a_foreign_package_is_imported_only_where_it_belongs(name: str) -> None:
    for other in imports(name):
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
