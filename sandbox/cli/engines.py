"""The engine of the settings, or the broker before one."""

from __future__ import annotations

import os

from sandbox.config import Settings
from sandbox.errors import ConfigError
from sandbox.runtimes.base import ContainerRuntime
from sandbox.runtimes.broker.runtime import SCHEME as BROKER
from sandbox.runtimes.broker.runtime import BrokerRuntime
from sandbox.runtimes.docker import build as builder
from sandbox.runtimes.docker.endpoint import find_endpoint
from sandbox.runtimes.docker.runtime import DockerRuntime


def container_runtime(settings: Settings) -> ContainerRuntime:
    """The engine of the settings, or the broker before one; nothing is sent to it yet.

    Raises:
        ConfigError: Its address cannot be used.
    """
    if settings.engine.startswith(BROKER):
        return BrokerRuntime(settings.engine)
    return docker_runtime(settings)


def docker_runtime(settings: Settings) -> DockerRuntime:
    """The engine of the settings itself; nothing is sent to it yet.

    Raises:
        ConfigError: Its address cannot be used.
    """
    return DockerRuntime.connect_engine(
        host=settings.engine,
        context=settings.engine_context,
        apparmor=settings.apparmor,
        disk=settings.disk,
    )


def image_client(settings: Settings) -> builder.ImageClient:
    """A client to build images with on the engine of the settings; blocks.

    Raises:
        ConfigError: The engine's address cannot be used.
        EngineUnavailable: The engine does not answer.
    """
    if settings.engine.startswith(BROKER):
        raise ConfigError(
            "A broker builds no images.", remedy="Build them where the engine itself can be used."
        )
    return builder.connect(find_endpoint(settings.engine, settings.engine_context, os.environ))
