"""The notebooks that callers use: which one a call means, and as whom it edits."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from sandbox.collaboration.authors import Author
from sandbox.collaboration.contracts import Change, LiveNotebook
from sandbox.errors import Conflict, FileError, InvalidRequest, NotFound, SandboxError
from sandbox.kernels.kernels import DEFAULT_KERNEL_ID
from sandbox.notebooks.editing import Edited
from sandbox.notebooks.models import CellRef, Notebook
from sandbox.server import arguments as arg
from sandbox.server.desk import Desk, agree, caller_of, grant_of, permit_here
from sandbox.server.http.calling import is_over_http
from sandbox.server.scopes import ALSO_NEEDED
from sandbox.server.tool import CallContext
from sandbox.server.wording import printable
from sandbox.sessions.models import WORKSPACE
from sandbox.sessions.notebooknames import Named
from sandbox.sessions.session import Session

MAX_AUTHOR = 64
MAX_SHOWN_CELLS = 50
"""Of those that a person is asked about at once."""
LEFT_OUT = -1
"""An index that stands for none given."""


@dataclass(frozen=True, slots=True)
class InUse:
    """The notebook that a call is about."""

    session: Session
    named: Named
    live: LiveNotebook
    author: Author

    async def edit(self, change: Change) -> Edited:
        """Change it."""
        return await self.live.edit(change, self.author)

    @property
    def notes(self) -> list[str]:
        """What its caller should know of it besides."""
        return [self.live.problem] if self.live.problem else []


@dataclass(frozen=True, slots=True)
class Which:
    """The cell that a call names, by its index or its id.

    Args:
        index: From 0; -1 when it is left out.
        cell_id: Empty when it is left out.
        by_index, by_id: What the two arguments are called.
    """

    index: int
    cell_id: str
    by_index: str = "cell_index"
    by_id: str = "cell_id"

    def check(self) -> None:
        """Refuse a call that names no cell.

        Raises:
            InvalidRequest: It does not.
        """
        if self.index == LEFT_OUT and not self.cell_id:
            raise InvalidRequest(
                "No cell is named.",
                remedy=f"Give {self.by_index}, from 0, or {self.by_id}, as read_notebook shows it.",
            )

    def of(self, notebook: Notebook) -> CellRef:
        """The cell in a notebook.

        Raises:
            NotFound: There is none.
            InvalidRequest: The index and the id name different cells.
        """
        self.check()
        if not self.cell_id:
            return notebook.index(self.index)
        found = notebook.index(self.cell_id)
        if self.index not in (LEFT_OUT, found):
            raise InvalidRequest(
                f"{self.by_index} {self.index} and {self.by_id} {self.cell_id[:80]!r} are "
                f"different cells: that one is at {found} now.",
                remedy=f"Give {self.by_id} alone.",
            )
        return self.cell_id


@asynccontextmanager
async def in_use(
    desk: Desk, ctx: CallContext, session_id: str, tool: str, name: str = ""
) -> AsyncGenerator[InUse]:
    """The notebook that its caller means, for one call of a tool.

    What runs cells is not asked about here: only the cells say what a person would agree to.

    Raises:
        NotFound: The caller uses no such notebook, or has no such session.
        NotPermitted: The session's policy does not allow the tool, or what it does besides.
        FileError: The notebook's file is not there any more.
    """
    also = ALSO_NEEDED.get(tool, ())
    at_path = named_by_path(ctx) if is_over_http(ctx) else None
    session_id = session_id or where_used(desk, ctx, name)
    async with desk.session(ctx, session_id, *(() if also else (tool,))) as session:
        for each in (tool, *also):
            permit_here(ctx, session.policy, each)
        named = at_path or session.notebook_names.find(caller_of(ctx).default_key, name)
        try:
            live = await session.notebooks.open(named.path)
        except FileError as exc:
            if at_path is not None:
                raise
            raise FileError(
                exc.reason,
                f"The notebook {printable(named.name)!r} cannot be opened: {exc.message}",
                remedy=exc.remedy or "unuse_notebook gives the name up; list_files shows what is.",
            ) from exc
        yield InUse(session, named, live, author_of(ctx))


def named_by_path(ctx: CallContext) -> Named:
    """The notebook that a request over HTTP names by its path, for it has no names of its own.

    Raises:
        InvalidRequest: It is no path.
    """
    request = cast(Request, ctx.request_context.request)
    try:
        path = _PATH.validate_python(request.path_params["path"])
    except ValidationError as exc:
        raise InvalidRequest("The path of a notebook has 1 to 4096 characters.") from exc
    path = posixpath.normpath(posixpath.join(WORKSPACE, path))
    return Named(path, path, is_current=False)


_PATH: TypeAdapter[str] = TypeAdapter(arg.Path)


def where_used(desk: Desk, ctx: CallContext, name: str = "") -> str:
    """The session in which a caller uses the notebook that it calls so, or its current one; empty,
    for the default one, where it uses none."""
    caller, manager = caller_of(ctx), desk.manager
    found = [
        (session.notebook_names.latest(caller.default_key, name), session.session_id)
        for session in manager.ownership.mine(caller)
        if session.is_usable
    ]
    latest, session_id = max(found, default=(0, ""))
    return session_id if latest else ""


async def agreed(
    ctx: CallContext, used: InUse, tool: str, sources: Mapping[str, str] | None = None
) -> bool:
    """Have a person agree to what a tool does with a notebook, where the policy wants that; whether
    it did.

    Args:
        sources: The cells that it runs, by id, and what they say.

    Raises:
        NotPermitted: There is no yes.
    """
    tools = (tool, *ALSO_NEEDED.get(tool, ()))
    if not set(tools).intersection(used.session.policy.approve.tools):
        return False
    cells = [*(sources or {}).items()]
    shown = {f"cell {cell_id}": source for cell_id, source in cells[:MAX_SHOWN_CELLS]}
    if more := len(cells) - len(shown):
        shown["AND MORE CELLS THAT ARE NOT SHOWN"] = str(more)
    await agree(ctx, used.session, tools, shown)
    return True


async def current_kernel(ctx: CallContext, session: Session) -> tuple[str, str] | None:
    """The kernel of the notebook that a caller uses now, and what to say of it; None where it is
    the default one, or no notebook is open. Requests over HTTP use none."""
    if is_over_http(ctx):
        return None
    try:
        named = session.notebook_names.find(caller_of(ctx).default_key)
    except NotFound:
        return None
    for live in session.notebooks.opened:
        if live.path == named.path:
            kernel_id = live.kernel_id or await live.use_kernel()
            if kernel_id == DEFAULT_KERNEL_ID:
                return None
            return kernel_id, f"it ran in the kernel of your notebook {printable(named.name)!r}"
    return None


def author_of(ctx: CallContext) -> Author:
    """As whom a call edits."""
    caller, params = caller_of(ctx), ctx.request_context.session.client_params
    name = params.client_info.name if params else grant_of(ctx).application
    key = f"{caller.principal}\0{caller.default_key}"
    return Author(key, printable(name, MAX_AUTHOR) or "agent")


def advice(used: InUse, error: SandboxError) -> SandboxError:
    """An error with what to call about it, where it is that the notebook's kernel is dead."""
    kernels = {each.kernel_id: each.state for each in used.session.kernels.infos}
    if isinstance(error, Conflict) and kernels.get(used.live.kernel_id) == "dead":
        error.remedy = "restart_notebook starts it anew, without its variables."
    return error


def taken(path: str) -> Conflict:
    """That a notebook cannot be created, for there is a file."""
    return Conflict(
        f"There is a file {printable(path)!r} already; it was left as it is.",
        remedy='mode="connect" opens it; another notebook_path creates one.',
    )
