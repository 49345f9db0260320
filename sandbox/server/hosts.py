"""What is known of the programs that call: what of a result their models see, and how much of it.

This is the one place that treats clients differently. A client says who it is, at its handshake or
with each request; who is not in the table gets the safe middle. docs/clients.md has the sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mcp_types import CallToolResult, InitializeRequestParams, InputRequiredResult
from mcp_types.version import is_version_at_least

from sandbox.config import Settings
from sandbox.server.results import MAX_TEXT

RESULT_LIMIT_META = "anthropic/maxResultSizeChars"
MAX_RESULT_CHARS = 500_000
"""The characters of one answer, as JSON; no answer without pictures is larger."""
LINKS_SINCE = "2025-06-18"
"""The protocol version from which on a content block may be a link to a resource."""


@dataclass(frozen=True, slots=True)
class Host:
    """A program that shows results to a model."""

    name: str
    """As the setting ``client_profile`` names it."""
    clients: tuple[str, ...] = ()
    """What the client's name contains, in small letters."""
    pictures: bool = True
    """Whether its model sees pictures that are content blocks."""
    structured: bool = True
    """Whether it is given structured results. One that shows its model nothing else when there are
    any is not, so that its model sees text as text, and pictures."""
    max_text: int = MAX_TEXT
    """The characters of text that its model sees of one answer."""
    max_failure: int = MAX_TEXT
    """The same of one that tells of a failure."""
    result_limit: int = 0
    """The size of an answer that it is told to expect of a tool, in characters; 0: nothing."""


UNKNOWN = Host("unknown")
HOSTS = (
    Host(
        "claude-code",
        ("claude-code",),
        structured=False,
        max_failure=10_000,
        result_limit=MAX_RESULT_CHARS,
    ),
    Host("claude", ("claude",)),
    Host("codex", ("codex",), structured=False),
    Host("chatgpt", ("chatgpt", "openai-mcp"), pictures=False),
    Host("vscode", ("visual studio code", "visual-studio-code")),
    Host("copilot-cli", ("github-copilot",), pictures=False),
    Host("cursor", ("cursor",)),
    Host("gemini", ("gemini",)),
    Host("inspector", ("inspector",)),
    UNKNOWN,
)
"""The first whose words are in a client's name is meant."""
PROFILES = {host.name: host for host in HOSTS}


@dataclass(frozen=True, slots=True)
class Shaping:
    """How this controller shapes results."""

    profile: str = ""
    """The host that every client is taken for; empty: what each says that it is."""
    picture_side: int = 1200
    """The longest side of a picture that is shown, in pixels."""
    pictures_bytes: int = 512 * 1024
    """What all pictures of one answer may take, as they are sent."""

    @classmethod
    def of(cls, settings: Settings) -> Shaping:
        """As the settings want it."""
        return cls(settings.client_profile, settings.picture_side, settings.pictures_bytes)

    def host(self, client: Client) -> Host:
        """Who is taken to have made a request."""
        if self.profile:
            return PROFILES[self.profile]
        params = client.client_params
        return host_of(params.client_info.name if params else "")


class Client(Protocol):
    """What a session of the SDK knows of the client at its other end."""

    @property
    def client_params(self) -> InitializeRequestParams | None:
        """What it said of itself, at its handshake or with this request."""
        ...

    @property
    def protocol_version(self) -> str:
        """Which it speaks."""
        ...


def host_of(client_name: str) -> Host:
    """The host of a client that calls itself so."""
    name = client_name[:200].lower()
    return next((host for host in HOSTS if any(word in name for word in host.clients)), UNKNOWN)


def takes_links(client: Client) -> bool:
    """Whether a client knows content that is a link to a resource."""
    return is_version_at_least(client.protocol_version, LINKS_SINCE)


def listed_for(host: Host, tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool as a host is told of it."""
    told = dict(tool)
    if not host.structured:
        told.pop("outputSchema", None)
    if host.result_limit:
        told["_meta"] = {**(tool.get("_meta") or {}), RESULT_LIMIT_META: host.result_limit}
    return told


def without_structure(result: CallToolResult | InputRequiredResult) -> Any:
    """An answer of which the content is all."""
    if not isinstance(result, CallToolResult):
        return result
    return result.model_copy(update={"structured_content": None})
