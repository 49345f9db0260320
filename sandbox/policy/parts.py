"""What all parts of a policy are, and how files name their fields."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sandbox.values import Frozen


class Part(Frozen):
    """A part of a policy. Files use the aliases, and only them; all else uses the names."""

    model_config = ConfigDict(
        validate_by_name=True, validate_by_alias=False, use_attribute_docstrings=True
    )


def key(name: str) -> Any:
    """The key of a field in files, for its ``Annotated``, where it is not the field's name."""
    return Field(validation_alias=name)


def file_key(model: type[BaseModel], name: str) -> str:
    """The key that a field has in a policy file."""
    alias = model.model_fields[name].validation_alias
    return alias if isinstance(alias, str) else name
