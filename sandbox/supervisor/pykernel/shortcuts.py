"""What IPython need not look for in plain code and plain values: most cells are both.

Each shortcut gives what the long way gives, and is not taken once somebody has registered
something that might want to be asked.
"""

# IPython and traitlets are annotated in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

import functools
from typing import Any, cast

from IPython.core import formatters
from IPython.core.inputtransformer2 import TransformerManager

_MARKS = ("!", "?", "%")
"""Of magics, commands and questions, wherever they stand in a line."""
_BEGINNINGS = (",", ";", "/")
"""Of a line that is a call without parentheses."""
_INDENTS = (" ", "\t", "\f")
_PLAIN = frozenset(
    (
        *(bool, int, float, complex, str, bytes, bytearray, range),
        *(list, tuple, dict, set, frozenset),
    )
)
_PLAIN_TEXT = "text/plain"
_REGISTERS = ("type_printers", "deferred_printers", "singleton_printers")
_KNOWN = frozenset(
    each
    for each in vars(formatters).values()
    if isinstance(each, type) and issubclass(each, formatters.BaseFormatter)
)


def may_await(cell: str) -> bool:
    """Whether there may be an ``await`` in transformed code."""
    return "await" in cell or "async" in cell


class QuickTransformers(TransformerManager):
    """IPython's transformers; code in which none of the marks is is not cut into tokens."""

    def __init__(self) -> None:
        super().__init__()
        self._first = tuple(self.token_transformers)

    def do_token_transforms(self, lines: list[str]) -> list[str]:
        """Transform lines by their tokens."""
        if tuple(self.token_transformers) == self._first and all(map(_is_plain, lines)):
            return lines
        return cast("list[str]", super().do_token_transforms(lines))


class QuickFormatter(formatters.DisplayFormatter):
    """IPython's formatter; values of Python's own types are text unless somebody says more."""

    def format(self, obj: Any, include: Any = None, exclude: Any = None) -> tuple[Any, Any]:
        """The forms of a value, and what is said of them."""
        if include or exclude or type(obj) not in _PLAIN or self._wants(obj):
            return cast("tuple[Any, Any]", super().format(obj, include, exclude))
        found: Any = self.formatters[_PLAIN_TEXT](obj)
        data, about = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
        return (
            {} if data is None else {_PLAIN_TEXT: data},
            {} if about is None else {_PLAIN_TEXT: about},
        )

    def _wants(self, obj: Any) -> bool:
        """Whether a formatter other than that of text may have something to say of a value."""
        others: dict[str, Any] = self.formatters
        known, keys = _KNOWN, _keys(type(obj))
        for each in (self.ipython_display_formatter, self.mimebundle_formatter, *others.values()):
            if type(each) is formatters.PlainTextFormatter:
                continue
            if type(each) not in known:
                return True
            for name in _REGISTERS:
                # Without traitlets, which would take longer than all else here.
                found = each._trait_values.get(name)
                if found and (id(obj) in found or not keys.isdisjoint(found)):
                    return True
        return type(others.get(_PLAIN_TEXT)) is not formatters.PlainTextFormatter


@functools.cache
def _keys(kind: type) -> frozenset[Any]:
    """All under which something may be registered for values of one of Python's own types."""
    names = {(each.__module__, each.__name__) for each in kind.__mro__}
    return frozenset(kind.__mro__) | names


def _is_plain(line: str) -> bool:
    """Whether no transformer can find anything in a line, or anything wrong with its indent."""
    return not (line.startswith(_INDENTS + _BEGINNINGS) or any(mark in line for mark in _MARKS))
