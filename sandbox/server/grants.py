"""A grant: what a token lets its bearer do, and in whose name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sandbox.errors import NotPermitted
from sandbox.server.scopes import IMPLIED, SCOPES, scopes_of
from sandbox.sessions.models import Caller
from sandbox.toolsets import tools_of

LOCAL = "local"
"""The principal of the first token, and of whoever started a stdio server."""


class InsufficientScope(NotPermitted):
    """A token was used for something that it does not grant."""

    def __init__(self, scope: str, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.scope = scope


@dataclass(frozen=True, slots=True)
class SharedNotebook:
    """The one notebook that a token is for."""

    session_id: str
    path: str
    """Where it is in the workspace, absolute."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one application may do for one principal."""

    principal: str
    application: str
    token_id: str
    """Names the grant where its secret must not be shown; for OAuth, the application's."""
    scopes: frozenset[str]
    policies: tuple[str, ...] | None = None
    """The policies that it may name, the default one first; None for all."""
    toolsets: tuple[str, ...] | None = None
    """The toolsets and tools that it offers over MCP, of those that the server does; None for all.
    """
    expires_at: float | None = None
    """Unix time, seconds; None for never."""
    is_foreign: bool = False
    """Whether an authorization server gave it out, which may give more."""
    notebook: SharedNotebook | None = None
    """The only thing that it may be used for; None for all that its scopes allow."""

    @property
    def shown_name(self) -> str:
        """Whom others see who works with it; a guest cannot be taken for anybody else."""
        if self.notebook is None:
            return self.principal
        return f"{self.application or 'somebody'} (guest)"

    def allows(self, tool: str) -> bool:
        """Whether it may be used for a tool."""
        return self.notebook is None and all(map(self._has, scopes_of(tool)))

    def offers(self, tool: str) -> bool:
        """Whether a tool is there for it over MCP."""
        return tool in tools_of(self.toolsets)

    def may_call(self, tool: str) -> bool:
        """Whether it is told of a tool: one that is there for it and that it may be used for."""
        return self.offers(tool) and self.allows(tool)

    def require(self, tool: str) -> None:
        """Refuse a tool that it may not be used for.

        Raises:
            InsufficientScope: It may not.
        """
        if self.notebook is not None:
            raise self._for_one_notebook()
        for scope in scopes_of(tool):
            self.require_scope(scope, tool)

    def require_notebook(self, scope: str, notebook: SharedNotebook) -> None:
        """Refuse a notebook that it may not be used for, with a scope.

        Raises:
            InsufficientScope: It may not.
        """
        if self.notebook not in (None, notebook):
            raise self._for_one_notebook()
        self.require_scope(scope, "this notebook")

    def may_edit(self, notebook: SharedNotebook) -> bool:
        """Whether it may be used to change a notebook."""
        return self.notebook in (None, notebook) and self._has("notebooks")

    def require_beyond_one_notebook(self, scope: str, what: str) -> None:
        """Refuse what needs a scope, and what a token for one notebook is not for.

        Raises:
            InsufficientScope: It may not be used for that.
        """
        if self.notebook is not None:
            raise self._for_one_notebook()
        self.require_scope(scope, what)

    def require_scope(self, scope: str, what: str) -> None:
        """Refuse what needs a scope that it does not have.

        Raises:
            InsufficientScope: It does not have it.
        """
        if not self._has(scope):
            raise InsufficientScope(
                scope,
                f"Your token does not have the scope {scope} that {what} needs.",
                remedy=f"It has: {', '.join(sorted(self.scopes)) or 'none'}. Ask for another.",
            )

    def _has(self, scope: str) -> bool:
        return scope in self.scopes or any(
            scope in IMPLIED.get(each, frozenset()) for each in self.scopes
        )

    def _for_one_notebook(self) -> InsufficientScope:
        return InsufficientScope(
            "notebooks",
            "Your token is for one shared notebook and nothing else.",
            remedy="Ask whoever shared it for a token of your own.",
        )

    def caller(self, default_key: str = "") -> Caller:
        """Who calls with it; the key tells apart the conversations of one principal."""
        return Caller(self.principal, default_key, self.policies)


LOCAL_GRANT = Grant(LOCAL, LOCAL, LOCAL, frozenset(SCOPES))
"""Everything, for the person whose machine it is."""


class TokenVerifier(Protocol):
    """Knows what a token grants."""

    async def grant(self, token: str) -> Grant | None:
        """What a token grants now; None for one that is unknown, revoked or expired.

        Raises:
            InfrastructureError: It cannot be told; the token must not be accepted.
        """
        ...


class Verifiers:
    """Several verifiers, of which the first that knows a token decides."""

    def __init__(self, verifiers: Sequence[TokenVerifier]) -> None:
        self._verifiers = tuple(verifiers)

    async def grant(self, token: str) -> Grant | None:
        """What a token grants now; None when nobody knows it."""
        for verifier in self._verifiers:
            found = await verifier.grant(token)
            if found is not None:
                return found
        return None
