"""From settings to a working controller: the one place where the parts are put together."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

from sandbox import images, resources
from sandbox.audit import AuditLog
from sandbox.config import Settings
from sandbox.errors import ConfigError, NotFound
from sandbox.policy import DEFAULT_POLICY, LivePolicies, PolicySet, load
from sandbox.runtimes.base import ContainerRuntime
from sandbox.runtimes.broker import SCHEME as BROKER
from sandbox.runtimes.broker import BrokerRuntime
from sandbox.runtimes.docker import DockerRuntime
from sandbox.runtimes.docker import build as builder
from sandbox.runtimes.docker.endpoint import find_endpoint
from sandbox.server.grants import TokenVerifier, Verifiers
from sandbox.server.oauth import AccessTokens
from sandbox.server.tokens import local_verifier
from sandbox.server.tokenstore import TokenStore
from sandbox.sessions import SessionManager
from sandbox.sessions.record import open_log
from sandbox.sessions.state import SlotKind, prepare_state_directory, take_slot


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


def _policy_folders(settings: Settings) -> list[Path]:
    own = [] if settings.policies is None else [settings.policies]
    return [resources.policies(), *own]


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
    return DockerRuntime.connect_engine(host=settings.engine, context=settings.engine_context)


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


@asynccontextmanager
async def token_verifier(settings: Settings, folder: Path) -> AsyncGenerator[TokenVerifier]:
    """Knows the tokens that a server takes: those given out, the local one, and OAuth's.

    Args:
        settings: What the controller is told.
        folder: The state folder.

    Raises:
        ConfigError: The file of the tokens cannot be used.
    """
    with closing(TokenStore(folder)) as store:
        verifiers: list[TokenVerifier] = [store, local_verifier(settings, folder)]
        if settings.oauth_issuer:
            verifiers.append(AccessTokens(settings, policy_set(settings).default, store))
        yield Verifiers(verifiers)


@contextmanager
def administration(settings: Settings) -> Generator[AuditLog]:
    """The record of a command that changes something without a controller.

    Raises:
        SandboxError: It cannot be written, so nothing may be changed.
    """
    with take_slot(state_dir(settings), "admin") as slot, closing(open_log(slot, settings)) as log:
        log.require()
        yield log


@asynccontextmanager
async def controller(settings: Settings, kind: SlotKind) -> AsyncGenerator[SessionManager]:
    """A controller in a slot of the state folder.

    Args:
        settings: What it is told.
        kind: ``serve`` keeps its sessions for the next one; the others close them at the end.

    Raises:
        SandboxError: It cannot start.
    """
    policies = live_policies(settings)
    runtime = container_runtime(settings)
    images.recipes()  # read now, not while the first caller waits for a session
    try:
        with take_slot(state_dir(settings), kind) as slot:
            async with SessionManager(
                runtime, policies, settings, slot, keep_sessions=kind == "serve"
            ) as manager:
                yield manager
    finally:
        await runtime.aclose()
