"""Reading the settings: from a file, the environment and flags, each stronger than the last.

The file is YAML, at ``$SANDBOX_CONFIG`` or ``~/.config/sandbox/config.yaml``; a setting ``port`` is
``SANDBOX_PORT`` in the environment and ``--port`` on the command line. Policies are not here: they
have files of their own.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import SecretStr, ValidationError

from sandbox.config.settings import Settings
from sandbox.container.roots import refuse_near
from sandbox.errors import ConfigError

PREFIX = "SANDBOX_"
CONFIG_VARIABLE = "SANDBOX_CONFIG"
MAX_FILE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as `sandbox config show` explains it."""

    key: str
    value: str
    """As text; a secret is masked."""
    origin: str
    """Where the value came from: `default`, the file's path, a variable or a flag."""
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


def load(
    file: Path | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Loaded:
    """Read the settings.

    Args:
        file: The configuration file; None takes ``$SANDBOX_CONFIG`` or the usual place, where it
            may be absent.
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
