"""Which tokens a served controller takes; apart from the wiring of those that take none."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from sandbox.cli.folders import policy_set
from sandbox.config import Settings
from sandbox.server.grants import TokenVerifier, Verifiers
from sandbox.server.localtoken import local_verifier
from sandbox.server.oauth import AccessTokens
from sandbox.server.tokens import TokenStore


@asynccontextmanager
async def token_verifier(
    settings: Settings, folder: Path
) -> AsyncGenerator[tuple[TokenVerifier, TokenStore]]:
    """Knows the tokens that a server takes: those given out, the local one, and OAuth's; and those
    given out, of which it may make more.

    Raises:
        ConfigError: The file of the tokens cannot be used.
    """
    with closing(TokenStore(folder)) as store:
        verifiers: list[TokenVerifier] = [store, local_verifier(settings, folder)]
        if settings.oauth_issuer:
            verifiers.append(AccessTokens(settings, policy_set(settings).default, store))
        yield Verifiers(verifiers), store
