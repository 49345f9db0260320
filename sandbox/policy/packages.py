"""The image of a policy: one that is shipped, and the packages that the policy adds to it.

Names are all that may stand here: no address, no path and no option ever reaches pip or apt.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field, SerializerFunctionWrapHandler, ValidationInfo, model_serializer

from sandbox.policy.fields import FROM_FILE, Form, did_you_mean, one_of, wrong
from sandbox.policy.parts import Part, key

Base = Literal["python", "datascience"]
BASES = ("python", "datascience")

MAX_PACKAGES = 64
MAX_REQUIREMENT = 200
LOCKS = "locks"
"""The folder beside policy files in which is what their packages came to."""

_DISTRIBUTION = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,78}[A-Za-z0-9])?"
_VERSION = r"[0-9][0-9A-Za-z.!+_-]{0,40}(?:\.\*)?"
_SPECIFIER = rf"(?:~=|==|!=|<=|>=|<|>)(?:{_VERSION})"
_EXTRAS = rf"\[{_DISTRIBUTION}(?:,{_DISTRIBUTION})*\]"
PIP = rf"{_DISTRIBUTION}(?:{_EXTRAS})?(?:{_SPECIFIER}(?:,{_SPECIFIER})*)?"
"""A package of the index: its name, extras and versions."""
_AROUND = re.compile(r" *([~=!<>]=|[<>,]) *")
APT = r"[a-z0-9][a-z0-9+.-]{0,78}[a-z0-9+]"
"""A Debian package: its name. At its end a `-` would be apt's word for removing it."""


def _entries(pattern: str, example: str, name_of: Callable[[str], str]) -> Form:
    """A list of packages, none twice, each of this form."""
    form = re.compile(pattern, re.ASCII)

    def validate(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list | tuple):
            raise wrong(f"{value!r} is not a list", f"Write a list: `[{example}]`.")
        entries = list(cast("Iterable[Any]", value))
        if len(entries) > MAX_PACKAGES:
            raise wrong(f"there are {len(entries)} packages", f"Keep at most {MAX_PACKAGES}.")
        kept: dict[str, str] = {}
        for index, entry in enumerate(entries):
            text = _AROUND.sub(r"\1", entry) if isinstance(entry, str) else ""
            if len(text) > MAX_REQUIREMENT or form.fullmatch(text) is None:
                raise wrong(
                    f"{str(entry)[:80]!r} is no name of a package",
                    f"Write names such as `{example}`: no address, path, option or marker.",
                    at=(str(index),),
                )
            if name_of(text) in kept:
                raise wrong(f"{entry!r} comes twice", "Keep each package once.", at=(str(index),))
            kept[name_of(text)] = text
        return tuple(kept.values())

    schema = {
        "type": "array",
        "maxItems": MAX_PACKAGES,
        "items": {"type": "string", "maxLength": MAX_REQUIREMENT, "pattern": f"^{pattern}$"},
    }
    return Form(validate, schema=schema)


def normalized(requirement: str) -> str:
    """The name of a requirement in the one form in which names are compared."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[~=!<>]", requirement, maxsplit=1)[0]).lower()


def _not_of_files() -> Form:
    def validate(value: Any, info: ValidationInfo) -> Any:
        if info.context == FROM_FILE:
            raise wrong("is not a key here", "Leave it out: it follows from the lock.")
        return value

    return Form(validate)


class ImagePolicy(Part):
    """An image that is shipped, and what is added to it."""

    base: Annotated[Base, one_of(*BASES), key("from")] = "python"
    """The recipe of the image: a folder of ``images/``."""
    pip: Annotated[tuple[str, ...], _entries(PIP, "polars==1.2", normalized)] = ()
    """Packages of the package index, by name, extras and versions."""
    apt: Annotated[tuple[str, ...], _entries(APT, "graphviz", str)] = ()
    """Debian packages, by name."""
    locked: Annotated[str, _not_of_files()] = Field(
        default="", pattern=r"\A(?:[0-9a-f]{64})?\z", json_schema_extra={"not": {}}
    )
    """SHA-256 of the lock that says what those came to; empty while there is none."""

    @model_serializer(mode="wrap")
    def _shortest(self, handler: SerializerFunctionWrapHandler) -> Any:
        # An image without additions is its name, as it was in labels before there were any.
        return handler(self) if self.has_additions else self.base

    def __str__(self) -> str:
        added = [*self.pip, *(f"{name} (Debian)" for name in self.apt)]
        return f"{self.base} with {', '.join(added)}" if added else self.base

    @property
    def has_additions(self) -> bool:
        """Whether packages are added to what is shipped."""
        return bool(self.pip or self.apt)

    @property
    def is_unbuilt(self) -> bool:
        """Whether packages are added of which nobody knows yet what they come to."""
        return self.has_additions and not self.locked

    def lists(self) -> dict[str, Any]:
        """What was asked for, as plain data."""
        return {"from": self.base, "pip": list(self.pip), "apt": list(self.apt)}

    def lock_file(self, folder: Path) -> Path:
        """The lock of these lists, beside the policy files of a folder."""
        digest = hashlib.sha256(json.dumps(self.lists(), sort_keys=True).encode()).hexdigest()
        return folder / LOCKS / f"{self.base}-{digest[:12]}.txt"

    def under(self, lock: bytes) -> ImagePolicy:
        """The same with what the packages came to; an empty lock says nothing of that."""
        locked = hashlib.sha256(lock).hexdigest() if lock else ""
        return self.model_copy(update={"locked": locked})


def named_image(value: Any) -> Any:
    """Takes a name for an image to which nothing is added."""
    if isinstance(value, dict | ImagePolicy):
        return cast("object", value)
    if value not in BASES:
        raise wrong(f"{value!r} is not accepted", did_you_mean(value, BASES))
    return ImagePolicy(base=value)


def joined_image(parent: Any, child: Any) -> Any:
    """What a child's file says of its image, over what its parent's says."""
    if isinstance(child, Mapping):
        below = {"from": parent} if isinstance(parent, str) else parent
        if isinstance(below, Mapping):
            return {**below, **child}  # pyright: ignore[reportUnknownVariableType]
    return child  # pyright: ignore[reportUnknownVariableType]
