"""What a value in a policy may be: its form in YAML, its bounds, and what is said when it is wrong.

Each function returns a validator for ``Annotated``. A policy file must give sizes and durations
with a unit, since a bare ``512`` leaves a reader guessing; the JSON form of a policy, which only
programs read, has plain bytes and seconds.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from pydantic import BeforeValidator, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError

from sandbox.policy import units

FROM_FILE = {"from_file": True}
"""The validation context of a policy file."""

WRONG = "wrong_value"
"""The type of the errors made here; their context has ``reason``, ``remedy`` and ``at``."""

_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}(?:\.[A-Za-z_][A-Za-z0-9_]{0,63}){0,7}", re.ASCII)
_WORD = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_Number = TypeVar("_Number", int, float)


of_files: ContextVar[bool] = ContextVar("of_files", default=False)
"""Whether a schema that is being made is that of files."""


@dataclass(frozen=True, slots=True, eq=False)  # compared, and hashed, by identity
class Form(BeforeValidator):
    """A validator that also says, as JSON Schema, what may stand in a file.

    Elsewhere, as in the results of tools, the schema is that of the value in its own units.

    Args:
        over: Whether that is all, or comes on top of what the type itself says.
    """

    schema: dict[str, Any] = field(default_factory=dict[str, Any])
    over: bool = False

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The schema of the annotated value."""
        if not of_files.get():
            return handler(core)
        return {**handler(core), **self.schema} if self.over else dict(self.schema)


def wrong(reason: str, remedy: str = "", *, at: tuple[str, ...] = ()) -> PydanticCustomError:
    """An error about a value, or the key ``at`` below it, with what to write instead."""
    return PydanticCustomError(WRONG, "{reason}", {"reason": reason, "remedy": remedy, "at": at})


def did_you_mean(word: Any, accepted: Iterable[str]) -> str:
    """A remedy that names the closest accepted word, or a few when none is close."""
    words = sorted(accepted)
    close = difflib.get_close_matches(str(word), words, n=1)
    if close:
        return f"Did you mean `{close[0]}`?"
    shown = ", ".join(f"`{each}`" for each in words[:12])
    return f"Accepted here: {shown}{' and more' if len(words) > 12 else ''}."


def size(minimum: int, maximum: int) -> Form:
    """A size between two numbers of bytes."""
    remedy = "Write a size with its unit: B, KiB, MiB, GiB or TiB, such as `512MiB`."
    schema = {"type": "string", "pattern": units.SIZE_PATTERN, "examples": ["512MiB", "1.5GiB"]}
    return _measure(units.parse_size, units.format_size, minimum, maximum, remedy, schema)


def duration(minimum: int, maximum: int) -> Form:
    """A duration between two numbers of seconds."""
    remedy = "Write a duration with its unit: s, m, h or d, such as `90s` or `1h30m`."
    schema = {"type": "string", "pattern": units.DURATION_PATTERN, "examples": ["90s", "1h30m"]}
    return _measure(units.parse_duration, units.format_duration, minimum, maximum, remedy, schema)


def count(minimum: int, maximum: int) -> Form:
    """A whole number between two others."""

    def validate(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong(f"{value!r} is not a whole number", "Write a number such as `4`.")
        return _bounded(value, minimum, maximum, str)

    return Form(validate, schema={"type": "integer", "minimum": minimum, "maximum": maximum})


def number(minimum: float, maximum: float) -> Form:
    """A number, whole or not, between two others."""

    def validate(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong(f"{value!r} is not a number", "Write a number such as `1.5`.")
        return _bounded(float(value), minimum, maximum, "{:g}".format)

    return Form(validate, schema={"type": "number", "minimum": minimum, "maximum": maximum})


def one_of(*accepted: str) -> Form:
    """One of some words."""

    def validate(value: Any) -> str:
        if isinstance(value, str) and value in accepted:
            return value
        raise wrong(f"{value!r} is not accepted", did_you_mean(value, accepted))

    return Form(validate, schema={"enum": list(accepted)})


def flag() -> Form:
    """True or false."""

    def validate(value: Any) -> bool:
        if isinstance(value, bool):
            return value
        raise wrong(f"{value!r} is not accepted", "Write `true` or `false`.")

    return Form(validate, schema={"type": "boolean"})


def word(what: str) -> Form:
    """A name of somebody's choice: small letters, digits, ``-``, ``_`` and ``.``."""

    def validate(value: Any) -> str:
        if isinstance(value, str) and _WORD.fullmatch(value):
            return value
        raise wrong(f"{value!r} is not {what}", "A name has 1 to 64 of a-z, 0-9, `-`, `_`, `.`.")

    return Form(validate, schema={"type": "string", "pattern": f"^{_WORD.pattern}$"})


def module() -> Form:
    """The full name of a Python module."""

    def validate(value: Any) -> str:
        if isinstance(value, str) and _MODULE.fullmatch(value):
            return value
        raise wrong(f"{value!r} is no name of a module", "Write a name such as `pandas`.")

    return Form(validate, schema={"type": "string", "pattern": f"^{_MODULE.pattern}$"})


def items(most: int) -> Form:
    """A list of parts, which may be empty, with at most so many."""

    def validate(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise wrong(f"{value!r} is not a list", "Write `- ` lines, or `[]` for none.")
        parts = tuple(cast("Iterable[Any]", value))
        if len(parts) > most:
            raise wrong(f"there are {len(parts)} entries", f"Keep at most {most}.")
        return parts

    return Form(validate, schema={"maxItems": most}, over=True)


def listing(*, optional: bool = False) -> Form:
    """A list with none twice, and at least one entry unless it is optional."""

    def validate(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or not (value or optional):
            raise wrong(f"{value!r} is not a list with entries", "Write a list: `[one, two]`.")
        entries = tuple(cast("Iterable[Any]", value))
        for index, entry in enumerate(entries):
            if entry in entries[:index]:
                raise wrong(f"{entry!r} comes twice", "Keep each entry once.")
        return entries

    least = {} if optional else {"minItems": 1}
    return Form(validate, schema={"uniqueItems": True, **least}, over=True)


def _measure(
    parse: Callable[[str], int],
    show: Callable[[int], str],
    minimum: int,
    maximum: int,
    remedy: str,
    schema: dict[str, Any],
) -> Form:
    def validate(value: Any, info: ValidationInfo) -> int:
        if isinstance(value, str):
            try:
                measured = parse(value)
            except ValueError as exc:
                raise wrong(str(exc), remedy) from exc
        elif isinstance(value, bool) or not isinstance(value, int):
            raise wrong(f"{value!r} is not a text with a number and a unit", remedy)
        elif info.context == FROM_FILE:
            raise wrong(f"{value!r} has no unit", remedy)
        else:
            measured = value
        return _bounded(measured, minimum, maximum, show)

    bounds = f"From {show(minimum)} to {show(maximum)}."
    return Form(validate, schema={**schema, "description": bounds})


def _bounded(
    value: _Number, minimum: _Number, maximum: _Number, show: Callable[[_Number], str]
) -> _Number:
    if minimum <= value <= maximum:
        return value
    raise wrong(
        f"{show(value)} is out of bounds",
        f"Write a value from {show(minimum)} to {show(maximum)}.",
    )
