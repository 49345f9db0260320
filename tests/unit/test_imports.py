"""What callers see can be imported alone: no engine, kernel or front comes with it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import __version__
from sandbox.container import images

PACKAGE = Path(__file__).parents[2] / "sandbox"

# Requests, results and errors, and what is decided about them without doing anything.
VALUES = (
    "sandbox.errors",
    "sandbox.policy",
    "sandbox.audit",
    "sandbox.kernels.models",
    "sandbox.terminals.models",
    "sandbox.commands.models",
    "sandbox.sessions.models",
    "sandbox.egress.models",
    "sandbox.workspaces.models",
    "sandbox.files.models",
    "sandbox.notebooks.models",
    "sandbox.container.spec",
    "sandbox.runtimes.base",
    "sandbox.runtimes.broker.protocol",
)
KERNELS = {"jupyter_client", "zmq"}
FRONTS = {"mcp", "starlette", "uvicorn"}
ENGINES = {"docker", "requests", "urllib3"}
OTHERS = {"h11", "pyte"}

# What takes a while to load, and a command's help does not need.
HEAVY = {"anyio", "asyncio", "pydantic", "cryptography", "yaml"}


def loaded(statement: str, *places: Path) -> set[str]:
    """The modules that a fresh interpreter has after a statement."""
    code = f"import sys; sys.path[:0] = {[str(each) for each in places]!r}; {statement}\n"
    code += "print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.split())


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize("name", VALUES)
def test_values_are_imported_without_an_engine_a_kernel_or_a_front(name: str) -> None:
    found = packages(loaded(f"import {name}", PACKAGE.parent))
    assert found & (KERNELS | FRONTS | ENGINES | OTHERS) == set()


def test_the_process_that_holds_the_engine_loads_nothing_that_reads_what_callers_send() -> None:
    found = packages(loaded("import sandbox.cli.broker", PACKAGE.parent))
    assert "docker" in found
    assert found & (KERNELS | FRONTS | OTHERS) == set()


def test_the_supervisors_modules_load_nothing_that_the_images_lack(tmp_path: Path) -> None:
    for path, data in images.recipes()["python"].files.items():
        if path.startswith("opt/sandbox/"):
            copied = tmp_path / path.removeprefix("opt/")
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(data)
    names = [module_name(path, tmp_path) for path in sorted(tmp_path.rglob("*.py"))]
    assert "sandbox.supervisor.main" in names
    found = loaded(f"import {', '.join(names)}", tmp_path)
    # A module that is only on this side would not have been found: the package is the copy's.
    assert {name for name in found if name.partition(".")[0] == "sandbox"} <= {"sandbox", *names}
    # ipykernel itself brings jupyter_client and asyncio.
    assert packages(found) & (FRONTS | ENGINES | OTHERS | HEAVY - {"asyncio"}) == set()


def test_help_is_shown_without_the_parts_that_a_command_needs() -> None:
    found = packages(loaded("import sandbox.cli.app, typer.rich_utils", PACKAGE.parent))
    assert found & (KERNELS | FRONTS | ENGINES | OTHERS | HEAVY) == set()


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=str)
def test_a_package_defines_nothing_itself(path: Path) -> None:
    if path == PACKAGE / "cli" / "__init__.py":
        return  # where the command begins
    if path == PACKAGE / "__init__.py":
        return  # where Jupyter Server looks for its extension; what it loads is below
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert node.module.startswith((module_name(path, PACKAGE.parent), "__future__"))
        elif isinstance(node, ast.Assign):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            assert names <= {"__all__", "__version__"}
        else:
            assert isinstance(node, ast.Expr)
            assert isinstance(node.value, ast.Constant)


def test_the_package_itself_loads_nothing() -> None:
    found = {
        name for name in loaded("import sandbox", PACKAGE.parent) if name.startswith("sandbox")
    }
    assert found == {"sandbox"}


def test_what_a_container_has_of_the_package_itself_is_its_version() -> None:
    """Its own ``__init__`` would be another one with each change, and with it every image."""
    files = images.recipes()["python"].files
    assert files["opt/sandbox/__init__.py"] == images.VERSION_ONLY.encode()
    assert ast.literal_eval(images.VERSION_ONLY.rpartition(" = ")[2]) == __version__
