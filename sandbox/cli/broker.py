"""`sandbox broker`: the engine's socket held by a process that no caller speaks to."""

from __future__ import annotations

import logging
import resource
import signal
from collections.abc import Collection
from contextlib import aclosing
from pathlib import Path

import anyio

from sandbox.broker.admission import AdmissionRules
from sandbox.broker.containers import OwnContainers
from sandbox.broker.operations import Broker
from sandbox.broker.server import serving
from sandbox.cli import logs
from sandbox.cli.engines import docker_runtime
from sandbox.cli.folders import live_policies, state_dir
from sandbox.config import Settings
from sandbox.container import images
from sandbox.policy import seccomp_profile
from sandbox.sessions.slots import take_slot

SPARE_CONNECTIONS = 64
"""Calls at once, besides two links of each session: an old one and the one that replaces it."""

logger = logging.getLogger("sandbox.broker")


def run_broker(settings: Settings, path: Path, uids: Collection[int]) -> None:
    """Serve at a Unix socket, to these users too, until Ctrl-C or SIGTERM; containers go on.

    Raises:
        SandboxError: It cannot start.
    """
    logs.configure(settings.log_level)
    # A link takes two descriptors, and the usual limit is of the time of select(2).
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    anyio.run(_run, settings, path.absolute(), frozenset(uids))


async def _run(settings: Settings, path: Path, uids: frozenset[int]) -> None:
    policies = live_policies(settings)
    rules = AdmissionRules(
        policies,
        seccomp_profile(),
        images.reference,
        runtime=settings.runtime,
        roots=settings.roots,
    )
    connections = 2 * settings.max_sessions + SPARE_CONNECTIONS
    with take_slot(state_dir(settings), "broker") as slot:
        async with aclosing(docker_runtime(settings)) as runtime:
            own = OwnContainers(runtime, slot.owner, settings.max_sessions)
            broker = Broker(runtime, rules, own)
            async with serving(broker, path, uids=uids, max_connections=connections):
                logger.info("at broker://%s, for %s", path, ", ".join(policies.names()))
                with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                    number = await anext(aiter(signals))
                    logger.info("%s: stopping; containers go on", signal.Signals(number).name)
