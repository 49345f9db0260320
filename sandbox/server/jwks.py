"""The keys with which an authorization server signs, fetched from it and kept for a while.

What comes over the network is bounded in time and size, and only public keys of asymmetric
algorithms are taken. Tokens cannot make us fetch: whatever they name, the server is asked at most
once a minute.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import anyio
import httpx2
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from sandbox.errors import InfrastructureError

KEEP_S = 3600.0
"""How long keys are good; after that a server that does not answer leaves nobody in."""
FETCH_EVERY_S = 60.0
RETRY_EVERY_S = 5.0
FETCH_TIMEOUT_S = 5.0
MAX_BODY_BYTES = 256 * 1024
MAX_KEYS = 64
MIN_RSA_BITS = 2048

_BY_CURVE = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Key:
    """A public key and the algorithms that it may be used with."""

    public: Any
    algorithms: tuple[str, ...]


class KeySet:
    """The keys of one authorization server: at the URL, or where its metadata says."""

    def __init__(
        self, issuer: str, url: str = "", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._issuer = issuer
        self._url = url
        self._clock = clock
        self._lock = anyio.Lock()
        self._keys: Mapping[str, Key] | None = None
        self._fetched_at = self._next_at = float("-inf")

    async def key(self, key_id: str) -> Key | None:
        """The key of that id; None when the server has none.

        Raises:
            InfrastructureError: There are no keys that are still good, and none can be had.
        """
        keys = self._good()
        if keys is None or key_id not in keys:
            async with self._lock:
                keys = self._good()
                if keys is None or key_id not in keys:
                    keys = await self._fetched()
        return keys.get(key_id)

    def _good(self) -> Mapping[str, Key] | None:
        return self._keys if self._clock() < self._fetched_at + KEEP_S else None

    async def _fetched(self) -> Mapping[str, Key]:
        failure = "it was asked a moment ago"
        if self._clock() >= self._next_at:
            try:
                with anyio.fail_after(FETCH_TIMEOUT_S):
                    self._keys = await self._fetch()
                self._fetched_at = self._clock()
                self._next_at = self._fetched_at + FETCH_EVERY_S
                return self._keys
            except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, ValueError) as exc:
                failure = str(exc) or type(exc).__name__
                self._next_at = self._clock() + RETRY_EVERY_S
                logger.warning("no keys of %s: %s", self._issuer, failure)
        keys = self._good()
        if keys is None:
            raise InfrastructureError(
                f"The token cannot be checked: the keys of {self._issuer} cannot be had "
                f"({failure}).",
                remedy="Try again in a moment.",
            )
        return keys

    async def _fetch(self) -> Mapping[str, Key]:
        async with httpx2.AsyncClient(timeout=FETCH_TIMEOUT_S, follow_redirects=False) as http:
            url = self._url or await self._discovered(http)
            found = await _json(http, url)
        listed = found.get("keys")
        if not isinstance(listed, list):
            raise ValueError(f"{url} holds no keys")
        return _keys(cast(list[object], listed))

    async def _discovered(self, http: httpx2.AsyncClient) -> str:
        """Where the server says that its keys are (RFC 8414, OpenID Connect Discovery)."""
        parts = httpx2.URL(self._issuer)
        path = parts.path.rstrip("/")
        for well_known in (
            f"/.well-known/oauth-authorization-server{path}",
            f"/.well-known/openid-configuration{path}",
            f"{path}/.well-known/openid-configuration",
        ):
            try:
                found = await _json(http, str(parts.copy_with(path=well_known)))
            except ValueError:
                continue
            url = found.get("jwks_uri")
            if found.get("issuer") != self._issuer or not isinstance(url, str):
                raise ValueError("its metadata is not its own, or names no keys")
            if httpx2.URL(url).scheme != "https" and httpx2.URL(url).host != parts.host:
                raise ValueError("its keys are not served over https")
            return url
        raise ValueError("it has no metadata")


async def _json(http: httpx2.AsyncClient, url: str) -> dict[str, Any]:
    async with http.stream("GET", url, headers={"Accept": "application/json"}) as answer:
        if answer.status_code != 200:
            raise ValueError(f"{url} answered {answer.status_code}")
        body = bytearray()
        async for piece in answer.aiter_bytes():
            body += piece
            if len(body) > MAX_BODY_BYTES:
                raise ValueError(f"{url} sent more than {MAX_BODY_BYTES} bytes")
    try:
        found: object = json.loads(body)
    except RecursionError as exc:
        raise ValueError(f"{url} sent no plain JSON") from exc
    if not isinstance(found, dict):
        raise ValueError(f"{url} sent no JSON object")
    return cast(dict[str, Any], found)


def _keys(listed: list[object]) -> dict[str, Key]:
    """The keys that can be used, by id; others are left out."""
    found: dict[str, Key] = {}
    for entry in listed[:MAX_KEYS]:
        data = cast(dict[str, Any], entry) if isinstance(entry, dict) else {}
        key_id = data.get("kid", "")
        algorithms = _algorithms(data)
        if not algorithms or not isinstance(key_id, str) or data.get("use", "sig") != "sig":
            continue
        try:
            public = jwt.PyJWK.from_dict(
                {name: value for name, value in data.items() if name != "d"}, algorithms[0]
            ).key
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        if not isinstance(public, RSAPublicKey) or public.key_size >= MIN_RSA_BITS:
            found[key_id] = Key(public, algorithms)
    return found


def _algorithms(data: dict[str, Any]) -> tuple[str, ...]:
    """What a key may be used with: what it is made for, and no more than it says."""
    fitting: tuple[str, ...] = ()
    match data.get("kty"):
        case "RSA":
            fitting = _RSA
        case "EC":
            fitting = tuple(filter(None, (_BY_CURVE.get(str(data.get("crv"))),)))
        case "OKP" if data.get("crv") == "Ed25519":
            fitting = ("EdDSA",)
        case _:
            pass
    named = data.get("alg")
    return fitting if named is None else tuple(name for name in fitting if name == named)
