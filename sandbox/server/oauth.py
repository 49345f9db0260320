"""Access tokens of an OAuth 2.1 authorization server: JWTs that it signed for this server.

We are a resource server only (RFC 9728, RFC 9068): people sign in and consent elsewhere. A token
counts when the issuer, the audience, the times and the signature of one of the issuer's keys are
right; what its header says of where keys are (``jku``, ``x5u``, ``jwk``) is not looked at.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import jwt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.config import Settings
from sandbox.server.grants import Grant
from sandbox.server.jwks import KeySet
from sandbox.server.scopes import SCOPES
from sandbox.server.tokens import FOREIGN, TokenStore

METADATA_PATH = "/.well-known/oauth-protected-resource"
LEEWAY_S = 30
MAX_TOKEN = 12 * 1024
MAX_NAME = 255
MAX_POLICIES = 64


@dataclass(frozen=True, slots=True)
class ProtectedResource:
    """What clients must know to get a token for this server (RFC 9728)."""

    resource: str
    """The URL of this server's MCP endpoint, which tokens must name as their audience."""
    issuer: str

    @property
    def metadata_url(self) -> str:
        """Where the metadata is, as clients reach it."""
        parts = urlsplit(self.resource)
        return f"{parts.scheme}://{parts.netloc}{METADATA_PATH}{parts.path.rstrip('/')}"

    def challenge(self, error: str = "", scope: str = "") -> str:
        """The ``WWW-Authenticate`` header of a refusal.

        Args:
            error: ``invalid_token`` or ``insufficient_scope``; empty when there was no token.
            scope: The scope that is missing; empty for what an agent needs in general.
        """
        told = {
            "error": error,
            "resource_metadata": self.metadata_url,
            "scope": scope or " ".join(name for name in SCOPES if name != "admin"),
        }
        return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in told.items() if value)

    def routes(self) -> list[Route]:
        """The metadata, at the place for this resource and at the root."""
        path = urlsplit(self.resource).path.rstrip("/")
        return [
            Route(each, self._metadata)
            for each in dict.fromkeys((METADATA_PATH + path, METADATA_PATH))
        ]

    async def _metadata(self, request: Request) -> Response:
        return JSONResponse(
            {
                "resource": self.resource,
                "resource_name": "Sandbox",
                "authorization_servers": [self.issuer],
                "scopes_supported": list(SCOPES),
                "bearer_methods_supported": ["header"],
            },
            headers={"Access-Control-Allow-Origin": "*"},
        )


def protected_resource(settings: Settings) -> ProtectedResource | None:
    """What the settings say of OAuth; None when there is none."""
    if not settings.oauth_issuer:
        return None
    return ProtectedResource(settings.oauth_audience, settings.oauth_issuer)


class AccessTokens:
    """Verifies access tokens; a :class:`~sandbox.server.grants.TokenVerifier`.

    The store remembers which applications call, and which were revoked; tokens that name no policy
    have the default one.
    """

    def __init__(
        self, settings: Settings, default_policy: str, store: TokenStore, keys: KeySet | None = None
    ) -> None:
        self._settings = settings
        self._default_policy = default_policy
        self._store = store
        self._keys = keys or KeySet(settings.oauth_issuer, settings.oauth_jwks_url)

    async def grant(self, token: str) -> Grant | None:
        """What an access token grants now; None for one that does not count.

        Raises:
            InfrastructureError: The issuer's keys cannot be had.
        """
        claims = await self._claims(token)
        grant = self._granted(claims) if claims is not None else None
        return grant if grant is not None and self._store.admit(grant) else None

    async def _claims(self, token: str) -> dict[str, Any] | None:
        if len(token) > MAX_TOKEN or token.count(".") != 2 or not token.isascii():
            return None
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            return None
        key_id = header.get("kid", "")
        if not isinstance(key_id, str) or "crit" in header:
            return None
        key = await self._keys.key(key_id)
        if key is None:
            return None
        try:
            return jwt.decode(
                token,
                key.public,
                algorithms=list(key.algorithms),
                audience=self._settings.oauth_audience,
                issuer=self._settings.oauth_issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            return None

    def _granted(self, claims: dict[str, Any]) -> Grant | None:
        subject = claims["sub"]
        client = claims.get("client_id") or claims.get("azp") or ""
        policies = _listed(claims.get(self._settings.oauth_policies_claim))
        if not (_is_name(subject) and _is_name(client or "-")) or len(policies) > MAX_POLICIES:
            return None
        issuer = self._settings.oauth_issuer
        identity = "\n".join((issuer, subject, client))
        return Grant(
            principal=f"{issuer}|{subject}",
            application=client,
            token_id=f"{FOREIGN}{hashlib.sha256(identity.encode()).hexdigest()[:12]}",
            scopes=frozenset(_listed(claims.get(self._settings.oauth_scope_claim))) & SCOPES.keys(),
            policies=tuple(policies) or (self._default_policy,),
            expires_at=float(claims["exp"]),
            is_foreign=True,
        )


def _listed(value: object) -> list[str]:
    """The words of a claim, which is a text with spaces or a list of texts."""
    if isinstance(value, str):
        return value.split()
    found = cast(list[object], value) if isinstance(value, list) else []
    return [word for word in found if isinstance(word, str)]


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()
