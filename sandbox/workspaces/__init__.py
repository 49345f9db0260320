"""Named workspaces: what is kept of ``/workspace`` from one session of a principal to its next."""

from sandbox.workspaces.archive import pack, unpack
from sandbox.workspaces.store import (
    Draft,
    Held,
    Kept,
    WorkspaceInfo,
    WorkspaceStore,
    check_workspace,
)

__all__ = [
    "Draft",
    "Held",
    "Kept",
    "WorkspaceInfo",
    "WorkspaceStore",
    "check_workspace",
    "pack",
    "unpack",
]
