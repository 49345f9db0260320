"""The settings: what a controller is told about its machine, and what each of them means."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Literal, cast
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sandbox.container.roots import Root, parse_roots, refuse_near
from sandbox.policy.units import DAY, GIB, KIB, MIB, TIB, parse_duration, parse_size
from sandbox.toolsets import ALL, check_toolsets
from sandbox.values import Frozen

_ORIGIN = re.compile(
    r"[a-z][a-z0-9+.-]*://(?:[A-Za-z0-9._~-]+|\[[0-9a-f:.]+\])(?::(?:[0-9]{1,5}|\*))?"
)


def _words(value: object) -> object:
    """A comma-separated text as a list, so that lists fit into an environment variable."""
    if isinstance(value, str):
        return [word for part in value.split(",") if (word := part.strip())]
    return value


def _folder(value: object) -> object:
    """A path with ``~`` resolved; the empty text stays None."""
    if isinstance(value, str | Path):
        return Path(value).expanduser().absolute() if str(value) else None
    return value


def _measured(parse: Callable[[str], int]) -> BeforeValidator:
    """A size or duration with its units; a number is one already, of bytes or seconds."""
    return BeforeValidator(
        lambda value: parse(value) if isinstance(value, str) and not value.isdecimal() else value
    )


def _pairs(value: object) -> object:
    """``name=value`` words as a mapping, so that one fits into an environment variable."""
    if isinstance(value, str):
        pairs = (word.partition("=") for word in cast("list[str]", _words(value)))
        return {name.strip(): rest.strip() for name, _, rest in pairs}
    return value


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Folder = Annotated[Path, BeforeValidator(_folder)]
Roots = Annotated[tuple[Root, ...], BeforeValidator(parse_roots)]
Bytes = Annotated[int, _measured(parse_size)]
Seconds = Annotated[int, _measured(parse_duration)]
Name = Annotated[str, Field(pattern=r"\A[a-z0-9][a-z0-9._-]{0,63}\z")]
ClientProfile = Literal[
    "",
    "claude-code",
    "claude",
    "codex",
    "chatgpt",
    "vscode",
    "copilot-cli",
    "cursor",
    "gemini",
    "inspector",
    "unknown",
]
Addresses = Annotated[dict[Name, IPv4Address | IPv6Address], BeforeValidator(_pairs)]


class Settings(Frozen, use_attribute_docstrings=True):
    """What a controller is told about its machine. It cannot loosen a policy."""

    state_dir: Folder
    """The folder of the token, the journal and the owner ids; private to its user."""

    engine: str = Field("", max_length=1024)
    """The container engine's address (`unix://`, `tcp://`, `ssh://`) or a broker's (`broker://`);
    empty: DOCKER_HOST, the current Docker context, or the local socket."""

    engine_context: str = Field("", max_length=256)
    """The Docker context that names the engine; empty: as `engine` says."""

    runtime: Literal["", "runc", "runsc"] = ""
    """The OCI runtime to force on every policy that permits it; empty: what the policy prefers."""

    apparmor: str = Field("", pattern=r"\A(?:[A-Za-z0-9][A-Za-z0-9._-]{0,127})?\z")
    """The AppArmor profile of every container, loaded on the engine's host: `sandbox` is the one in
    `policies/apparmor/`. Empty: the engine's own, where it has AppArmor. For a broker, its own."""

    disk: str = Field("", pattern=r"\A(/dev/[A-Za-z0-9/_.-]{1,64})?\z")
    """The block device of the engine's host that the `limits.disk_*` of policies are for, such as
    `/dev/sda`; empty: the one below the engine's folder, where this is that host."""

    policies: Folder | None = None
    """A folder of policies besides the built-in ones, which they may extend."""

    roots: Roots = ()
    """The folders of the host that policies may mount, by name: `{datasets: /srv/datasets}`, or
    `{scratch: {path: /srv/scratch, writable: true}}`; as a variable `datasets=/srv/datasets,…`."""
    secrets_dir: Folder | None = None
    """The folder of secrets: a file for each, named as policies name it. None: there are none."""

    default_policy: str = Field("", max_length=64)
    """The policy of sessions that name none; empty: `offline`."""

    max_sessions: int = Field(100, ge=1, le=10_000)
    """The open sessions of this controller, of all callers together; of these, the last quarter is
    for principals that have fewer than four."""

    overcommit: Literal["warn", "refuse"] = "warn"
    """When the open sessions may use more than the engine's host has of memory, processes or open
    files: `warn` says so at the start and in `sandbox doctor`; `refuse` opens no such session."""

    memory_reserve_bytes: Bytes = Field(512 * MIB, ge=0, le=TIB)
    """What is kept free of the memory of the engine's host, where that is this machine: bytes, or
    `512MiB`. Past it no session is opened; those that are open go on."""

    pool: bool = True
    """Whether sandboxes are kept ready as the policies say (`pool: {min, max}`); `false`: each is
    made when its session is asked for."""

    max_sessions_per_principal: int = Field(0, ge=0, le=10_000)
    """The open sessions of one principal under all policies together; 0: as the policies say."""

    left_session_s: Seconds = Field(300, ge=0, le=DAY)
    """How long the default session of a conversation that is over is kept for the next conversation
    of its token, for clients that shake hands: seconds, or `5m`; 0: none is taken over."""

    executions_per_minute: int = Field(0, ge=0, le=100_000)
    """The cells and commands that one principal may run within a minute; 0: no quota."""

    cpu_seconds_per_day: int = Field(0, ge=0, le=10**9)
    """The processor time of one principal's sessions in a day (UTC), in seconds; 0: no quota."""

    egress_bytes_per_day: Bytes = Field(0, ge=0, le=1024 * TIB)
    """What one principal's sessions may exchange with the network in a day (UTC), bytes or `1GiB`;
    0: no quota."""

    workspace_quota_bytes: Bytes = Field(4 * GIB, ge=MIB, le=1024 * TIB)
    """What the named workspaces of one principal may take together: bytes, or `4GiB`."""

    max_workspaces: int = Field(32, ge=1, le=10_000)
    """The named workspaces of one principal."""

    fork_state_bytes: Bytes = Field(256 * MIB, ge=0, le=1024 * TIB)
    """The most that a fork of a session carries of a kernel's variables: bytes, or `256MiB`; never
    more than half of the memory that the policy gives."""

    package_cache_bytes: Bytes = Field(2 * GIB, ge=0, le=1024 * TIB)
    """What the packages that sessions install may take together on disk, where they are kept for
    all of them: bytes, or `2GiB`; 0: nothing is kept, and each session asks the index itself."""

    host: str = Field("127.0.0.1", min_length=1, max_length=255)
    """The address that `sandbox serve` binds."""

    port: int = Field(8000, ge=0, le=65_535)
    """The port that `sandbox serve` binds; 0: any free one."""

    allowed_hosts: Words = ()
    """The `Host` headers that are served, `name` or `name:port` or `name:*`; empty: loopback names.
    A bind to another address needs them."""

    allowed_origins: Words = ()
    """The `Origin` headers of web pages that may call, `https://app.example`, with `:port` or `:*`;
    browsers let these read the answers (CORS). Empty: pages of this host itself."""

    tools: Words = (ALL,)
    """What is offered over MCP: `all`, toolsets such as `code` and `files`, or single tools, by
    comma. Each tool costs a model tokens. A token may offer less; REST is not concerned."""

    max_connections: int = Field(1024, ge=16, le=32_768)
    """The open connections of `sandbox serve`; never more than half of the descriptors it may have.
    Past them, those that wait longest without a token make room."""

    max_connections_per_address: int = Field(0, ge=0, le=32_768)
    """The open connections of one client's address, which behind a proxy is that of all; 0: three
    quarters of `max_connections`."""

    max_requests_per_principal: int = Field(256, ge=4, le=32_768)
    """The requests of one principal that are served at a time, those that stay open too."""

    token: SecretStr = SecretStr("")
    """The bearer token of `sandbox serve`; empty: one is made and kept in the state folder."""

    oauth_issuer: str = Field("", max_length=512)
    """The authorization server whose access tokens are accepted beside our own; empty: none."""

    oauth_audience: str = Field("", max_length=512)
    """The URL at which clients reach MCP, which the tokens of `oauth_issuer` must name as their
    audience, for example https://sandbox.example.org/mcp/v1."""

    oauth_jwks_url: str = Field("", max_length=1024)
    """Where the keys of `oauth_issuer` are; empty: what its metadata says."""

    oauth_scope_claim: str = Field("scope", min_length=1, max_length=256)
    """The claim of an access token that lists its scopes."""

    oauth_policies_claim: str = Field("policies", min_length=1, max_length=256)
    """The claim that lists the policies it may name; without it, the default policy alone."""

    client_profile: ClientProfile = ""
    """The client that results are shaped for, whoever calls: what docs/clients.md knows of it.
    Empty: the one that each client says it is."""

    picture_side: int = Field(1200, ge=64, le=8192)
    """The longest side of a picture in a result, in pixels; larger ones are shown smaller."""

    pictures_bytes: Bytes = Field(512 * KIB, ge=16 * KIB, le=640 * KIB)
    """What the pictures of one result may take together, as base64; they share it fairly."""

    audit_max_bytes: Bytes = Field(256 * MIB, ge=MIB, le=TIB)
    """The size of the audit log past which its oldest lines are removed: bytes, or `256MiB`."""

    audit_max_age_s: Seconds = Field(90 * DAY, ge=3600, le=36_500 * DAY)
    """The age past which lines of the audit log are removed: seconds, or `90d`."""

    addresses: Addresses = Field(default_factory=dict[str, IPv4Address | IPv6Address])
    """Named addresses, `name=address`, that a policy's `address` rule may open: the only way past
    the built-in list of what no session may reach, such as a model server on this host."""

    ca_bundle: Folder | None = None
    """A file of certificates in PEM that sessions with a network trust besides the public ones;
    empty: the one that SSL_CERT_FILE or PIP_CERT names here."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """How much is logged to standard error."""

    @field_validator("roots")
    @classmethod
    def _roots_are_not_our_own(
        cls, roots: tuple[Root, ...], info: ValidationInfo
    ) -> tuple[Root, ...]:
        package = Path(__file__).parents[1]
        refuse_near(roots, str(package), "the controller's own code")
        if "state_dir" in info.data:
            refuse_near(roots, str(info.data["state_dir"]), "the controller's state")
        return roots

    @field_validator("allowed_origins")
    @classmethod
    def _origins_are_named(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin[:80]!r} names no origin, such as https://app.example or "
                    "http://localhost:*; `*` and `null` would be every page"
                )
        return origins

    @field_validator("tools")
    @classmethod
    def _tools_are_known(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        return check_toolsets(words)

    @model_validator(mode="after")
    def _oauth_is_whole(self) -> Settings:
        if bool(self.oauth_issuer) != bool(self.oauth_audience):
            raise ValueError("oauth_issuer and oauth_audience need each other")
        for name in ("oauth_issuer", "oauth_audience", "oauth_jwks_url"):
            value: str = getattr(self, name)
            parts = urlsplit(value)
            is_private = parts.scheme == "http" and is_loopback(parts.hostname or "")
            if value and not (parts.hostname and (parts.scheme == "https" or is_private)):
                raise ValueError(f"{name} must be an https:// URL (http:// on loopback only)")
        return self

    @model_validator(mode="after")
    def _public_bind_names_its_hosts(self) -> Settings:
        if not is_loopback(self.host) and not self.allowed_hosts:
            raise ValueError(
                f"host {self.host} is not a loopback address, so allowed_hosts must list the names "
                "under which clients reach it, for example sandbox.example.org:8000"
            )
        token = self.token.get_secret_value()
        if token and (
            len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token
        ):
            raise ValueError("token must be 16 or more printable ASCII characters without spaces")
        return self


def is_loopback(host: str) -> bool:
    """Whether an address to bind can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
