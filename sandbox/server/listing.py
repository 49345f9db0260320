"""What a caller is told of the tools: those that it may call, in words that mention no others."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from sandbox.toolsets import TOOLS

INSTRUCTIONS = """\
All runs in isolated containers, one for each session, with no network unless its policy grants \
some. Call execute_code at once: variables and files stay for \
the next call. A session_id names one of your sessions, a kernel_id one of its kernels; empty or \
left out it is the default one, which opens by itself. Paths are in the workspace, which is also \
`~` or an empty one, or absolute. What takes longer than `wait` answers `running` and goes on. \
Ask for an execution again with get_execution. Ask for a command again with \
get_command. After use_notebook the tools of notebooks act on that one, or on the one that \
notebook_name names; a cell is named by its index from 0 or by its id, which stays when cells \
move. All times are in seconds, all sizes in bytes, all points in time Unix time. Sessions \
expire; close_session frees them earlier."""
"""Each sentence is shown to those who are offered all the tools that it names."""

_SENTENCE = re.compile(r"(?<=[.:?!]) (?=[A-Z`])")
_WORD = re.compile(r"[a-z]+_[a-z_]+")


def instructions(offered: frozenset[str], introduction: str = INSTRUCTIONS) -> str:
    """What the server says of itself to a caller who is offered these tools."""
    return naming_only(introduction, offered)


def listed(tools: Iterable[dict[str, Any]], offered: frozenset[str]) -> list[dict[str, Any]]:
    """Of a list of tools, as it is sent, those that are offered.

    Tools that answer the same refer to the first of them, so that it is told once.
    """
    first: dict[str, str] = {}
    there: list[dict[str, Any]] = []
    for tool in tools:
        if tool["name"] in offered:
            description = naming_only(tool.get("description", ""), offered)
            schema = tool["outputSchema"]
            if (same := first.setdefault(repr(schema), tool["name"])) != tool["name"]:
                schema = {"type": "object", "description": f"As {same} answers."}
            there.append({**tool, "description": description, "outputSchema": schema})
    return there


@lru_cache(maxsize=1024)
def naming_only(text: str, offered: frozenset[str]) -> str:
    """A text without the sentences that name a tool which is not offered."""
    absent = TOOLS - offered
    sentences = _SENTENCE.split(text)
    return " ".join(each for each in sentences if absent.isdisjoint(_WORD.findall(each)))
