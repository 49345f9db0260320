"""How a cell has ended that its kernel is done with, and what to do instead."""

from __future__ import annotations

import pytest

from sandbox.kernels.verdict import (
    DEBUGGER_REASON,
    EXIT_KEPT,
    EXIT_REASON,
    GETPASS_REASON,
    INPUT_REASON,
    verdict,
)

ASKED = {"ename": "StdinNotImplementedError", "evalue": "raw_input was called, but …"}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ASKED, INPUT_REASON),
        (ASKED | {"traceback": "Cell In[1], line 1\nFile …/ipykernel/kernelbase.py"}, INPUT_REASON),
        (ASKED | {"evalue": "getpass was called, but …", "traceback": ""}, GETPASS_REASON),
        (ASKED | {"traceback": "Cell In[1]\nFile /usr/lib/python3.13/bdb.py:94"}, DEBUGGER_REASON),
        (ASKED | {"traceback": "Cell In[1]\nFile /usr/lib/python3.13/pdb.py:433"}, DEBUGGER_REASON),
    ],
)
def test_who_asks_is_told_what_to_do_instead(error: dict[str, str], reason: str) -> None:
    found = verdict("error", error, over="", interrupted=False, asked_input=False)
    assert found == ("error", reason)


@pytest.mark.parametrize(
    ("reply", "error", "found"),
    [
        ("ok", None, ("ok", f"{EXIT_REASON} {EXIT_KEPT}")),
        ("error", {"ename": "SystemExit", "evalue": "3"}, ("error", EXIT_REASON)),
        ("error", {"ename": "ValueError", "evalue": "3"}, ("error", "")),
        ("error", {"ename": "KeyboardInterrupt", "evalue": ""}, ("error", "")),
    ],
)
def test_a_cell_that_ended_itself_says_so(
    reply: str, error: dict[str, str] | None, found: tuple[str, str]
) -> None:
    told = verdict(reply, error, over="", interrupted=False, asked_input=False, exited=True)
    assert told == found
