"""What an examination of this machine finds, line by line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination."""

    name: str
    verdict: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""
    """What to do about it; empty when nothing needs to be done."""


def ok(name: str, detail: str) -> Finding:
    """Something is as it should be."""
    return Finding(name, "ok", detail)


def warn(name: str, detail: str, remedy: str = "") -> Finding:
    """Something could be better."""
    return Finding(name, "warn", detail, remedy)


def fail(name: str, detail: str, remedy: str) -> Finding:
    """Something stands in the way of sandboxes."""
    return Finding(name, "fail", detail, remedy)
