"""Names of keys."""

from __future__ import annotations

import pytest

from sandbox.errors import InvalidRequest
from sandbox.terminals.keys import encode_keys


@pytest.mark.parametrize(
    ("names", "sent"),
    [
        (["enter"], "\r"),
        (["ctrl-c", "ctrl-d", "Ctrl-Z"], "\x03\x04\x1a"),
        (["escape", "tab", "backspace", "delete"], "\x1b\t\x7f\x1b[3~"),
        (["up", "down", "right", "left", "home", "end"], "\x1b[A\x1b[B\x1b[C\x1b[D\x1b[H\x1b[F"),
        (["page-up", "pagedown"], "\x1b[5~\x1b[6~"),
        (["f1", "f4", "f5", "f12"], "\x1bOP\x1bOS\x1b[15~\x1b[24~"),
        (["alt-x", "alt-X", "alt--"], "\x1bx\x1bX\x1b-"),
        ([], ""),
    ],
)
def test_a_key_sends_what_xterm_sends(names: list[str], sent: str) -> None:
    assert encode_keys(names) == sent


def test_cursor_keys_have_another_form_when_the_program_asks_for_it() -> None:
    assert encode_keys(["up", "home", "enter"], application_cursor=True) == "\x1bOA\x1bOH\r"


@pytest.mark.parametrize("name", ["", "return key", "ctrl-", "ctrl-é", "alt-", "alt-\n", "f13"])
def test_what_is_no_key_is_refused_with_the_names_of_keys(name: str) -> None:
    with pytest.raises(InvalidRequest, match="enter"):
        encode_keys([name])
