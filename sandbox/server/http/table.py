"""All operations over HTTP: the tools that have a place there, and what is there alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from sandbox.server.desk import Desk
from sandbox.server.http.following import FollowEndpoints
from sandbox.server.http.lookups import LookupEndpoints
from sandbox.server.http.notebookplaces import NotebookEndpoints
from sandbox.server.http.operation import EVENTS, Operation
from sandbox.server.http.shares import ShareEndpoints
from sandbox.server.http.tooling import tool_operation
from sandbox.server.http.transfers import TransferEndpoints
from sandbox.server.tool import StrictTool
from sandbox.server.tools.catalogue import all_tools

GROUPS = (
    LookupEndpoints,
    FollowEndpoints,
    TransferEndpoints,
    NotebookEndpoints,
    ShareEndpoints,
)


def all_operations(desk: Desk) -> Sequence[Operation]:
    """Every operation, in the order of the tools, then of the groups."""
    tools = {each.name: cast(StrictTool, each) for each in all_tools(desk)}
    of_tools = (tool_operation(each, desk) for each in tools.values())
    own = (each for group in GROUPS for each in group(desk, tools).operations())
    found = [*(each for each in of_tools if each is not None), *own]
    followed = {each.http.path.removesuffix("/events") for each in found if EVENTS in each.media}
    return [
        replace(each, events=True)
        if each.http.method == "GET" and each.http.path in followed
        else each
        for each in found
    ]
