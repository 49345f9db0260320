"""docs/security.md names a test for each claim, and each attack has its claim."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "tests" / "security"
DOCUMENT = ROOT / "docs" / "security.md"
NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def functions_of(path: Path) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """The test functions of a module by name."""
    return {
        node.name: node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


def rows(document: str) -> list[list[list[str]]]:
    """The tables of a document: of each its rows, of each row its cells."""
    tables = re.findall(r"(?:^\|.*\n)+", document, re.MULTILINE)
    return [
        [row.strip().strip("|").split(" | ") for row in table.splitlines() if "|---" not in row]
        for table in tables
    ]


def suite() -> set[tuple[str, str]]:
    """Every attack, as module and name."""
    return {(path.name, name) for path in SUITE.glob("test_*.py") for name in functions_of(path)}


def named() -> list[tuple[str, str]]:
    """Every test that the document names."""
    return NAMED.findall(DOCUMENT.read_text())


def test_every_test_that_the_document_names_exists() -> None:
    assert set(named()) - suite() == set()


def test_every_attack_stands_in_the_document_once() -> None:
    assert sorted(named()) == sorted(suite())


def test_every_attack_names_the_invariant_or_rule_it_tries_to_break() -> None:
    first_words = re.compile(r"(Invariant \d+|Policy rule [\w., ]+): \S")
    silent = [
        name
        for path in SUITE.glob("test_*.py")
        for name, node in functions_of(path).items()
        if not first_words.match(ast.get_docstring(node) or "")
    ]
    assert silent == []


def test_every_file_that_the_document_names_exists() -> None:
    paths = re.findall(r"`((?:tests|sandbox|policies)/[\w/]+\.\w+)`", DOCUMENT.read_text())
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_every_row_of_a_table_has_the_cells_of_its_head() -> None:
    odd = [
        row for table in rows(DOCUMENT.read_text()) for row in table if len(row) != len(table[0])
    ]
    assert odd == []
