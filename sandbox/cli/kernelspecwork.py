"""What `sandbox kernelspec install` does: it looks at what is wanted, then writes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio

from sandbox.cli.folders import policy_set
from sandbox.config import Loaded, Settings
from sandbox.errors import InvalidRequest, NotFound
from sandbox.jupyter.kernelconfig import KernelConfig
from sandbox.jupyter.kernelspecs import folder_for
from sandbox.jupyter.kernelspecs import install as write

CONFIG_VARIABLE = "SANDBOX_CONFIG"


def install(
    loaded: Loaded,
    wanted: Mapping[str, Any],
    place: tuple[bool, bool, str],
    *,
    name: str,
    display_name: str,
    force: bool,
) -> Path:
    """Write a kernelspec, and return its folder.

    Raises:
        InvalidRequest: The options make no sense together.
        NotFound: The controller has no such policy.
    """
    given = {key: value for key, value in wanted.items() if value}
    try:
        config = KernelConfig.of(given)
    except ValueError as exc:
        raise InvalidRequest(f"{exc}") from exc
    for path in map(Path, config.with_):
        if not path.exists():
            raise InvalidRequest(f"{path} is not there, so it cannot be copied.")
    folder = folder_for(*place)
    if config.url:
        anyio.run(_check_served, loaded.settings, config)
    else:
        policy_set(loaded.settings).get(config.policy)
    return write(config, folder, name, display_name, _environment(loaded), force=force)


async def _check_served(settings: Settings, config: KernelConfig) -> None:
    from sandbox.jupyter.servedkernel import client_of

    async with client_of(settings, config) as client:
        names = [str(each["name"]) for each in (await client.call("GET", "policies"))["policies"]]
    if config.policy not in names:
        raise NotFound(
            f"{config.url} has no policy {config.policy!r:.80} for you.",
            remedy=f"It has {', '.join(names)}." if names else "",
        )


def _environment(loaded: Loaded) -> dict[str, str]:
    """The variables by which a kernel's controller has the settings of this command line."""
    found: dict[str, str] = {}
    for key, origin in loaded.origins.items():
        value = getattr(loaded.settings, key)
        if origin.startswith("--"):
            found[f"SANDBOX_{key.upper()}"] = str(
                value.absolute() if isinstance(value, Path) else value
            )
        elif origin.startswith("/"):
            found[CONFIG_VARIABLE] = origin
    return found
