"""The way out of this machine, as its operator has configured it."""

from __future__ import annotations

import resource
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from sandbox.config import Settings
from sandbox.container.variables import CA_FILE, CA_VARIABLES
from sandbox.egress.certificates import bundle
from sandbox.egress.dialing import SystemDialer, SystemResolver
from sandbox.egress.indexclient import HttpUpstream
from sandbox.egress.packagecache import PackageCache
from sandbox.egress.packagefiles import FileStore
from sandbox.egress.packageindex import PackageIndex, fetcher
from sandbox.egress.wayout import WayOut, shares_of_connections
from sandbox.policy import Policy


def machine_egress(settings: Settings, env: Mapping[str, str]) -> WayOut:
    """What the gateways of a controller on this machine share.

    Raises:
        ConfigError: The certificates cannot be read.
    """
    certificates = bundle(settings.ca_bundle, env)

    @cache
    def tls() -> ssl.SSLContext:
        return ssl.create_default_context(cadata=certificates.decode() or None)

    upstream = HttpUpstream(tls)
    index = PackageIndex(fetcher(upstream))
    limit = settings.package_cache_bytes
    store = FileStore(settings.state_dir / "packages", limit)
    return WayOut(
        resolver=SystemResolver(),
        dialer=SystemDialer(),
        services=index,
        packages=PackageCache(index, upstream, store) if limit else None,
        addresses=settings.addresses,
        certificates=certificates,
        tls=tls,
        places=shares_of_connections(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    )


@dataclass(frozen=True, slots=True)
class Outfit:
    """What a session with a way out is given, so that programs find and trust it."""

    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    certificates: bytes = b""
    """The content of ``CA_FILE``; empty for no such file."""


async def outfit(egress: WayOut, policy: Policy) -> Outfit:
    """What a session of a policy is given; nothing when it may reach nothing."""
    if policy.network.is_none:
        return Outfit()
    variables = dict(await egress.services.variables(policy.network.services))
    if egress.packages is not None and policy.network.shares_packages:
        variables |= egress.packages.variables()
    if egress.certificates:
        variables |= dict.fromkeys(CA_VARIABLES, CA_FILE)
    return Outfit(variables, egress.certificates)
