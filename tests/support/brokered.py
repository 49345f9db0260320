"""Brokers before the local engine, in the test's own process."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from sandbox import resources
from sandbox.broker.admission import AdmissionRules
from sandbox.broker.containers import OwnContainers
from sandbox.broker.operations import Broker
from sandbox.broker.server import serving
from sandbox.container import images
from sandbox.policy import ImagePolicy, load, seccomp_profile
from sandbox.runtimes.base import ContainerRuntime
from sandbox.runtimes.broker.runtime import BrokerRuntime

ABSENT_IMAGE = "sandbox/nothing:none"
"""What the policy ``datascience`` names to a broker of these tests."""


def image_for(image: ImagePolicy) -> str:
    return ABSENT_IMAGE if image.base == "datascience" else images.reference(image)


@asynccontextmanager
async def brokered(
    engine: ContainerRuntime,
    folder: Path,
    *,
    image_for: Callable[[ImagePolicy], str] = image_for,
    mark: str = "",
    limit: int = 20,
) -> AsyncIterator[BrokerRuntime]:
    """A broker before an engine, and a runtime that asks it."""
    path = folder / "broker.sock"
    rules = AdmissionRules(load(resources.policies()), seccomp_profile(), image_for)
    broker = Broker(engine, rules, OwnContainers(engine, mark or uuid.uuid4().hex, limit))
    uids = frozenset({os.geteuid()})
    async with serving(broker, path, uids=uids, max_connections=2 * limit):
        runtime = BrokerRuntime(f"broker://{path}")
        yield runtime
        await runtime.aclose()
