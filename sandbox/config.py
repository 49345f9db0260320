"""The controller's settings: from a file, the environment and flags, each stronger than the last.

The file is YAML, at ``$SANDBOX_CONFIG`` or ``~/.config/sandbox/config.yaml``; a setting ``port`` is
``SANDBOX_PORT`` in the environment and ``--port`` on the command line. Policies are not here: they
have files of their own.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sandbox.errors import ConfigError
from sandbox.policy.units import DAY, GIB, MIB, TIB, parse_duration, parse_size
from sandbox.roots import Root, parse_roots, refuse_near

PREFIX = "SANDBOX_"
CONFIG_VARIABLE = "SANDBOX_CONFIG"
MAX_FILE_BYTES = 1024 * 1024


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


def _size(value: object) -> object:
    """A size with its unit as bytes; a number of bytes stays one."""
    return parse_size(value) if isinstance(value, str) and not value.isdecimal() else value


def _duration(value: object) -> object:
    """A duration with its units as seconds; a number of seconds stays one."""
    return parse_duration(value) if isinstance(value, str) and not value.isdecimal() else value


def _pairs(value: object) -> object:
    """``name=value`` words as a mapping, so that one fits into an environment variable."""
    if isinstance(value, str):
        pairs = (word.partition("=") for word in cast("list[str]", _words(value)))
        return {name.strip(): rest.strip() for name, _, rest in pairs}
    return value


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Folder = Annotated[Path, BeforeValidator(_folder)]
Roots = Annotated[tuple[Root, ...], BeforeValidator(parse_roots)]
Bytes = Annotated[int, BeforeValidator(_size)]
Seconds = Annotated[int, BeforeValidator(_duration)]
Name = Annotated[str, Field(pattern=r"\A[a-z0-9][a-z0-9._-]{0,63}\z")]
Addresses = Annotated[dict[Name, IPv4Address | IPv6Address], BeforeValidator(_pairs)]


class Settings(BaseModel):
    """What a controller is told about its machine. It cannot loosen a policy."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    state_dir: Folder
    """The folder of the token, the journal and the owner ids; private to its user."""

    engine: str = Field("", max_length=1024)
    """The container engine's address (`unix://`, `tcp://`, `ssh://`) or a broker's (`broker://`);
    empty: DOCKER_HOST, the current Docker context, or the local socket."""

    engine_context: str = Field("", max_length=256)
    """The Docker context that names the engine; empty: as `engine` says."""

    runtime: Literal["", "runc", "runsc"] = ""
    """The OCI runtime to force on every policy that permits it; empty: what the policy prefers."""

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
    """The open sessions of this controller, of all callers together."""

    max_sessions_per_principal: int = Field(0, ge=0, le=10_000)
    """The open sessions of one principal under all policies together; 0: as the policies say."""

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

    host: str = Field("127.0.0.1", min_length=1, max_length=255)
    """The address that `sandbox serve` binds."""

    port: int = Field(8000, ge=0, le=65_535)
    """The port that `sandbox serve` binds; 0: any free one."""

    allowed_hosts: Words = ()
    """The `Host` headers that are served, `name` or `name:port` or `name:*`; empty: loopback names.
    A bind to another address needs them."""

    allowed_origins: Words = ()
    """The `Origin` headers of web pages that may call; empty: pages of this host itself."""

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
        package = Path(__file__).parent
        refuse_near(roots, str(package), "the controller's own code")
        if "state_dir" in info.data:
            refuse_near(roots, str(info.data["state_dir"]), "the controller's state")
        return roots

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


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as `sandbox config show` explains it.

    Args:
        key: Its name.
        value: Its value as text; a secret is masked.
        origin: Where the value came from: `default`, the file's path, a variable or a flag.
        meaning: What it does.
    """

    key: str
    value: str
    origin: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with the origin of every value that is not a default."""

    settings: Settings
    origins: Mapping[str, str]

    def explain(self) -> list[Setting]:
        """Every setting with its value, where it came from and what it means."""
        return [
            Setting(
                key=key,
                value=_shown(getattr(self.settings, key)),
                origin=self.origins.get(key, "default"),
                meaning=" ".join((field.description or "").split()),
            )
            for key, field in Settings.model_fields.items()
        ]


def is_loopback(host: str) -> bool:
    """Whether an address to bind can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load(
    file: Path | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Loaded:
    """Read the settings.

    Args:
        file: The configuration file; None takes ``$SANDBOX_CONFIG`` or the usual place, where it
            may be absent.
        env: The environment.
        flags: What the command line says; None values are left out.

    Raises:
        ConfigError: A source cannot be read, or has an unknown key or a wrong value.
    """
    environ = dict(env or {})
    values: dict[str, object] = {"state_dir": _default_state_dir(environ)}
    origins: dict[str, str] = {}
    path = _config_file(file, environ)
    if path is not None:
        for key, value in _read(path).items():
            values[key], origins[key] = value, str(path)
    for key, value in _from_environment(environ).items():
        values[key], origins[key] = value, PREFIX + key.upper()
    for key, value in (flags or {}).items():
        if value is not None:
            values[key], origins[key] = value, "--" + key.replace("_", "-")
    try:
        settings = Settings.model_validate(values)
    except ValidationError as exc:
        raise _explained(exc, origins) from exc
    if path is not None:
        try:
            refuse_near(settings.roots, str(path), "the controller's configuration")
        except ValueError as exc:
            raise ConfigError(f"{origins['roots']}: roots: {exc}.") from exc
    return Loaded(settings, origins)


def _default_state_dir(env: Mapping[str, str]) -> Path:
    state_home = env.get("XDG_STATE_HOME") or str(_home(env) / ".local/state")
    return Path(state_home).absolute() / "sandbox"


def _home(env: Mapping[str, str]) -> Path:
    return Path(env.get("HOME") or Path.home())


def _config_file(file: Path | None, env: Mapping[str, str]) -> Path | None:
    named = file or (Path(env[CONFIG_VARIABLE]) if env.get(CONFIG_VARIABLE) else None)
    if named is not None:
        return named.expanduser().absolute()
    usual = Path(env.get("XDG_CONFIG_HOME") or _home(env) / ".config") / "sandbox/config.yaml"
    return usual if usual.exists() else None


def _from_environment(env: Mapping[str, str]) -> dict[str, object]:
    """The settings in the environment.

    Other programs use the prefix too, so a foreign name is left alone unless it looks like one of
    ours misspelt.
    """
    found: dict[str, object] = {}
    for name, value in env.items():
        if not name.startswith(PREFIX) or name == CONFIG_VARIABLE or not value:
            continue
        key = name.removeprefix(PREFIX).lower()
        if key in Settings.model_fields:
            found[key] = value
        elif close := difflib.get_close_matches(key, Settings.model_fields, n=1, cutoff=0.8):
            raise ConfigError(
                f"{name}: there is no such setting.",
                remedy=f"Did you mean {PREFIX}{close[0].upper()}? Rename or unset it.",
            )
    return found


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = cast(object, self.construct_object(key_node, deep=True))  # pyright: ignore[reportUnknownMemberType]  # untyped there
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes.")
        loaded: object = yaml.load(text, _Loader)  # noqa: S506  # derived from SafeLoader
    except OSError as exc:
        raise ConfigError(
            f"{path} cannot be read: {exc.strerror}.",
            remedy=f"Create it, or point {CONFIG_VARIABLE} elsewhere.",
        ) from exc
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as exc:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(exc).split())}") from exc
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: must hold `key: value` lines.")
    return {str(key): value for key, value in cast(dict[object, object], loaded).items()}


def _explained(exc: ValidationError, origins: Mapping[str, str]) -> ConfigError:
    first = exc.errors(include_url=False)[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    origin = origins.get(key, "")
    where = ": ".join(part for part in (origin, key) if part)
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, Settings.model_fields, n=1, cutoff=0.5)
        return ConfigError(
            f"{where}: there is no such setting.",
            remedy=f"Did you mean {close[0]}?" if close else "See `sandbox config show`.",
        )
    reason = first["msg"].removeprefix("Value error, ")
    return ConfigError(
        f"{where}: {reason}." if where else f"The settings do not fit together: {reason}.",
        remedy="See `sandbox config show`.",
    )


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return "(set)" if value.get_secret_value() else ""
    if isinstance(value, dict):
        return ", ".join(f"{key}={each}" for key, each in cast("dict[str, object]", value).items())
    if isinstance(value, tuple):
        return ", ".join(map(str, cast(tuple[object, ...], value)))
    return "" if value is None else str(value)
