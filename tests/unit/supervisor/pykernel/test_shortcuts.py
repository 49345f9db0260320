"""What is left out for plain code and plain values changes nothing of what comes of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter
from IPython.core.inputtransformer2 import TransformerManager

from sandbox.supervisor.pykernel.shortcuts import QuickFormatter, QuickTransformers, may_await

from ....support.shells import plain_shell


@pytest.fixture
def shell() -> Iterator[Any]:
    with plain_shell() as shell:
        yield shell


VALUES: list[Any] = [
    *(1, True, 2.5, 1j, "a\nb", b"\0", [1, [2]], {"a": (1,)}, {3}, range(4), frozenset()),
    *(None, object, len, ValueError("x"), type("Odd", (int,), {"_repr_html_": lambda _: "h"})(7)),
]
CODES = [
    *("1+1", "x = 5\ny = 6", "%time 1", "x = !ls", "len?", "/len 'a'", ",f a", ";f a b", "a %  b"),
    *("if 1:\n    !ls", "%%bash\nls", "  x = 1\n  y", ">>> 1\n", "In [1]: 2", "(1,\n%a)", "'''\n?"),
    *("f(\n", "a = '!'", "x = %env\n", "if 1:\n    2\n  3", "", "\n\n1", "# %%\n1"),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_has_the_same_forms(value: Any, shell: Any) -> None:
    ours, theirs = QuickFormatter(parent=shell), DisplayFormatter(parent=shell)
    assert ours.format(value) == theirs.format(value)
    assert ours.format(value, include=["text/html"]) == theirs.format(value, include=["text/html"])


def as_html(_value: Any) -> str:
    return "<b>"


def test_who_registers_a_form_of_a_plain_type_is_asked(shell: Any) -> None:
    ours = QuickFormatter(parent=shell)
    html: Any = ours.formatters["text/html"]
    html.for_type(int, as_html)
    html.for_type_by_name("builtins", "str", as_html)
    html.singleton_printers[id(VALUES)] = as_html
    for value in (5, True, "text", VALUES):
        assert ours.format(value)[0]["text/html"] == "<b>", value
    assert "text/html" not in ours.format(2.5)[0]
    html.for_type(object, as_html)
    assert ours.format(2.5)[0]["text/html"] == "<b>"


def test_a_formatter_of_the_users_own_is_asked(shell: Any) -> None:
    ours: Any = QuickFormatter(parent=shell)
    ours.formatters["text/odd"] = as_html
    assert ours.format(5)[0] == {"text/plain": "5", "text/odd": "<b>"}
    ours.formatters["text/plain"] = as_html
    assert ours.format(5)[0]["text/plain"] == "<b>"


def outcome(manager: TransformerManager, code: str) -> Any:
    try:
        return manager.transform_cell(code)
    except SyntaxError as exc:
        return repr(exc)


@pytest.mark.parametrize("code", CODES)
def test_code_is_transformed_alike(code: str) -> None:
    assert outcome(QuickTransformers(), code) == outcome(TransformerManager(), code)


def test_a_transformer_of_the_users_own_sees_all_code() -> None:
    seen: list[Any] = []

    class Looking:
        @classmethod
        def find(cls, tokens: Any) -> None:
            seen.append(tokens)

    ours = QuickTransformers()
    ours.token_transformers.append(Looking)
    ours.transform_cell("1+1")
    assert seen


def test_only_code_with_the_words_may_await() -> None:
    assert may_await("await f()")
    assert may_await("[x async for x in y]")
    assert not may_await("1+1")
