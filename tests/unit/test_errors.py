from __future__ import annotations

import inspect
import re

import pytest

from sandbox import errors
from sandbox.errors import FileError, InfrastructureError, InvalidRequest, PolicyError, SandboxError
from sandbox.link.stream import refusal

KINDS = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)
]


def test_every_error_is_drawn_in_the_tree_below_the_one_it_is() -> None:
    drawn: dict[str, str] = {}
    above: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ([│├└─ ]*)([A-Z]\w+)  +\w", line):
            depth = len(found[1])
            above[depth] = found[2]
            drawn[found[2]] = above.get(depth - 4, "Exception")
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in KINDS}


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in KINDS]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


def test_an_error_reads_as_its_cause_and_then_its_remedy() -> None:
    assert str(SandboxError("It broke.", remedy="Mend it.")) == "It broke. Mend it."
    assert str(SandboxError("It broke.")) == "It broke."


@pytest.mark.parametrize(
    ("file", "key", "text"),
    [
        ("a.yaml", "limits.memory", "a.yaml: limits.memory: is odd."),
        ("a.yaml", "", "a.yaml: is odd."),
        ("", "limits", "limits: is odd."),
        ("", "", "is odd."),
    ],
)
def test_a_policy_error_says_where(file: str, key: str, text: str) -> None:
    error = PolicyError("is odd", file=file, key=key)
    assert (str(error), error.reason, error.file, error.key) == (text, "is odd", file, key)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((kind.code, kind) for kind in KINDS if kind in (InvalidRequest, errors.NotFound)),
        ("quota_exceeded", errors.QuotaExceeded),
        ("conflict", errors.Conflict),
        ("not_permitted", errors.NotPermitted),
        ("failed", InfrastructureError),
        ("policy_not_enforced", InfrastructureError),
        ("session_lost", InfrastructureError),
        ("", InfrastructureError),
        ("file.nonsense", InfrastructureError),
    ],
)
def test_a_refusal_becomes_the_error_it_names_and_never_one_of_ours(
    code: str, kind: type[SandboxError]
) -> None:
    assert type(refusal(code, "text")) is kind


def test_a_refused_file_operation_keeps_its_reason() -> None:
    error = refusal("file.not_found", "a.txt does not exist.")
    assert isinstance(error, FileError)
    assert (error.reason, error.message) == ("not_found", "a.txt does not exist.")
