"""What a supervisor answers, checked before anybody believes it."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sandbox.errors import LinkLost, ProtocolError
from sandbox.link.link import Link

_Model = TypeVar("_Model", bound="Answer")


class Answer(BaseModel):
    """A form that answers must have; what else they say is not looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


def parse(model: type[_Model], answer: dict[str, Any]) -> _Model:
    """Make a model of an answer.

    Raises:
        ProtocolError: It does not fit.
    """
    try:
        return model.model_validate(answer)
    except ValidationError as exc:
        raise ProtocolError(f"The supervisor's answer makes no {model.__name__}.") from exc


def linked(link: Link | None) -> Link:
    """The link of a session.

    Raises:
        LinkLost: There is none at the moment.
    """
    if link is None:
        raise no_link()
    return link


def no_link() -> LinkLost:
    """The error for a session whose link is down at the moment."""
    return LinkLost("There is no link to the sandbox at the moment.", remedy="Try again.")
