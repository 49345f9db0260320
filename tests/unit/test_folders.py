"""No folder of tests imports from another: what they share stands in ``tests/support``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SUPPORT = "support"
MODULES = sorted(path.relative_to(TESTS.parent).as_posix() for path in TESTS.rglob("*.py"))


def imports(module: str, text: str) -> Iterator[str]:
    """The modules of tests that one imports, wherever in it, by their whole names."""
    package = Path(module).parent.parts
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            names = [f"{base}.{alias.name}" for alias in node.names]
        yield from (name for name in names if name.partition(".")[0] == TESTS.name)


def strangers(module: str, text: str) -> list[str]:
    """What a module imports of folders other than its own and the shared one."""
    folder = Path(module).parts[1]
    return [name for name in imports(module, text) if name.split(".")[1] not in (folder, SUPPORT)]


@pytest.mark.parametrize("module", MODULES)
def test_a_folder_of_tests_imports_only_from_itself_and_from_what_is_shared(module: str) -> None:
    assert strangers(module, (TESTS.parent / module).read_text()) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("tests/faults/test_a.py", "from tests.integration.served import serve"),
        ("tests/faults/test_a.py", "import tests.integration.served"),
        ("tests/faults/test_a.py", "from tests import integration"),
        ("tests/faults/test_a.py", "from ..integration.served import serve"),
        ("tests/faults/test_a.py", "from ..integration import served"),
        ("tests/faults/test_a.py", "from .. import integration"),
        ("tests/faults/test_a.py", "def late():\n    from ..integration import served"),
        ("tests/unit/link/test_a.py", "from ...contract.specs import linked"),
        ("tests/support/a.py", "from ..integration import served"),
    ],
)
def test_an_import_from_another_folder_is_found(module: str, text: str) -> None:
    assert strangers(module, text) != []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("tests/faults/test_a.py", "from tests.support.served import serve"),
        ("tests/faults/test_a.py", "from ..support import served"),
        ("tests/unit/link/test_a.py", "from ...support.machines import until"),
        ("tests/unit/link/test_a.py", "from ..kernels.liars import Liar"),
        ("tests/support/a.py", "from .served import serve"),
    ],
)
def test_an_import_from_the_own_folder_or_what_is_shared_is_not(module: str, text: str) -> None:
    assert strangers(module, text) == []
