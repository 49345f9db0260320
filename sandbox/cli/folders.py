"""The folders of the settings: the state's, and those of the policies."""

from __future__ import annotations

from pathlib import Path

from sandbox import resources
from sandbox.config import Settings
from sandbox.errors import NotFound
from sandbox.policy import DEFAULT_POLICY, LivePolicies, PolicySet, load
from sandbox.policy.loader import SUFFIX
from sandbox.sessions.slots import prepare_state_directory


def state_dir(settings: Settings) -> Path:
    """The state folder of the settings, made if need be.

    Raises:
        ConfigError: It cannot be used.
    """
    prepare_state_directory(settings.state_dir)
    return settings.state_dir


def policy_set(settings: Settings) -> PolicySet:
    """The built-in policies and the operator's own.

    Raises:
        PolicyError: One of them is wrong.
        NotFound: The default policy of the settings is not among them.
    """
    policies = load(*_policy_folders(settings))
    policies.default = settings.default_policy or DEFAULT_POLICY
    try:
        policies.get()
    except NotFound as exc:
        raise NotFound(f"default_policy: {exc.message}", remedy=exc.remedy) from exc
    return policies


def live_policies(settings: Settings) -> LivePolicies:
    """The same, kept up to date with their files.

    Raises:
        SandboxError: As of :func:`policy_set`, at the start only.
    """
    return LivePolicies(lambda: policy_set(settings), _policy_folders(settings))


def policy_file(settings: Settings, named: str) -> Path:
    """The file of a policy, by its path or its name.

    Raises:
        NotFound: There is no such policy.
    """
    path = Path(named)
    if path.suffix == SUFFIX or path.name != named:
        return path
    for folder in _policy_folders(settings):
        if (folder / f"{named}{SUFFIX}").is_file():
            return folder / f"{named}{SUFFIX}"
    policy_set(settings).get(named)
    raise NotFound(f"There is no policy {named!r}.", remedy="`sandbox policy list` shows them.")


def _policy_folders(settings: Settings) -> list[Path]:
    own = [] if settings.policies is None else [settings.policies]
    return [resources.policies(), *own]
