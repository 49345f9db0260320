"""Where an operation is over HTTP: its method, its path, and what its answer says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Method = Literal["GET", "POST", "PUT", "DELETE"]

MADE = 201
"""The status where something was made that has a place of its own."""
STARTED = 202
"""The status where what a POST began goes on after its answer."""


@dataclass(frozen=True, slots=True)
class Http:
    """The place of an operation.

    An argument that the path names is taken from there. Of the others, GET and DELETE take theirs
    from the query, POST and PUT from a JSON object in the body.
    """

    method: Method
    path: str
    """Below ``/mcp/v1``; a part in braces is the argument of that name, ``{path:path}`` one with
    slashes."""
    status: int = 200
    """Of an answer that is no error."""
    query: tuple[str, ...] = ()
    """Arguments that a POST or a PUT takes from the query as well."""
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Of arguments for which programs want another value than models."""
    stands_for: Mapping[str, str] = field(default_factory=dict[str, str])
    """Parts of the path that are no argument, and the argument that each is in place of."""
    items: str = ""
    """The field of the answer that is a list of any length, which is then given in pages."""
    location: str = ""
    """Where what was made, or goes on, is below ``/mcp/v1``: in terms of the path and of the
    answer."""
    is_large: bool = False
    """Whether its body may be as large as a message for MCP."""

    is_bytes: bool = False
    """Whether its body is a file of any size; then its arguments are in the query."""

    @property
    def template(self) -> str:
        """The path as OpenAPI and people read it."""
        return self.path.replace(":path}", "}")

    @property
    def has_body(self) -> bool:
        """Whether arguments come as a JSON object."""
        return self.method in ("POST", "PUT") and not self.is_bytes


BY_PATH: Mapping[str, str] = {"path": "notebook_name"}
"""A notebook is named by its path over HTTP, where nobody has names of their own."""
