"""Attacks on who calls: forged, stolen, widened and outlived tokens, and what checks them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from sandbox.config import Settings
from sandbox.errors import InfrastructureError
from sandbox.server import jwks
from sandbox.server.auth import Gate, security_settings
from sandbox.server.jwks import KeySet
from sandbox.server.oauth import MAX_TOKEN, AccessTokens, protected_resource
from sandbox.server.tokens import TokenStore

from ..support.clock import Clock
from .authority import AUDIENCE, Authority, public_jwk, running

pytestmark = pytest.mark.anyio


@pytest.fixture
def authority() -> Iterator[Authority]:
    with running() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def settings(authority: Authority, tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, oauth_issuer=authority.issuer, oauth_audience=AUDIENCE)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TokenStore]:
    made = TokenStore(tmp_path)
    yield made
    made.close()


@pytest.fixture
def tokens(settings: Settings, store: TokenStore, clock: Clock) -> AccessTokens:
    keys = KeySet(settings.oauth_issuer, settings.oauth_jwks_url, clock=clock)
    return AccessTokens(settings, "offline", store, keys)


def encoded(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "ES256"])
async def test_a_true_token_grants_what_it_says_and_no_more(
    tokens: AccessTokens, authority: Authority, algorithm: str
) -> None:
    """Invariant 6: scopes that do not exist do not count, nor policies that are not named."""
    wanted = {"scope": "files:read root admin:all", "policies": None}
    grant = await tokens.grant(authority.token(algorithm, **wanted))
    assert grant is not None
    assert grant.principal == f"{authority.issuer}|u-1"
    assert (grant.scopes, grant.policies) == (frozenset({"files:read"}), ("offline",))
    assert grant.application == "an agent"


async def test_unsigned_and_secretly_signed_tokens_are_refused(
    tokens: AccessTokens, authority: Authority
) -> None:
    """Invariant 6: no ``alg: none``, no public key as a secret, no key of another kind."""
    public = authority.rsa.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    claims = authority.claims()
    parts = authority.token().split(".")
    authority.keys.append({"kty": "oct", "k": encoded(b"k" * 32), "kid": "o1"})
    unsigned = [
        f"{encoded({'alg': alg, 'kid': kid})}.{encoded(claims)}."
        for alg in ("none", "None", "NONE", "")
        for kid in ("r1", "o1", "")
    ]

    # PyJWT does not sign with a public key as the secret, so these are made by hand.
    def hashed(secret: bytes, kid: str) -> str:
        body = f"{encoded({'alg': 'HS256', 'kid': kid})}.{encoded(claims)}"
        return f"{body}.{encoded(hmac.new(secret, body.encode(), hashlib.sha256).digest())}"

    forged = [
        *unsigned,
        hashed(public, "r1"),
        hashed(public, "e1"),
        hashed(b"k" * 32, "o1"),
        hashed(b"", "r1"),
        f"{encoded({'alg': 'RS256', 'kid': 'e1'})}.{parts[1]}.{parts[2]}",
        f"{encoded({'alg': 'ES256', 'kid': 'r1'})}.{parts[1]}.{parts[2]}",
        f"{parts[0]}.{encoded(claims | {'scope': 'admin'})}.{parts[2]}",
        f"{parts[0]}.{parts[1]}.{encoded(b'')}",
        f"{parts[0]}.{parts[1]}.{encoded(bytes(256))}",
    ]
    assert [await tokens.grant(token) for token in forged] == [None] * len(forged)
    assert await tokens.grant(authority.token())


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": "https://other.example.org/mcp/v1"},
        {"aud": AUDIENCE + "/"},
        {"aud": AUDIENCE.upper()},
        {"aud": ["https://other.example.org"]},
        {"aud": []},
        {"aud": None},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"iss": ["x"]},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "a\nb"},
        {"sub": "x" * 5000},
        {"exp": None},
        {"exp": int(time.time()) - 3600},
        {"exp": "never"},
        {"exp": float("inf")},
        {"nbf": int(time.time()) + 3600},
        {"client_id": {"a": 1}},
        {"policies": [str(n) for n in range(1000)]},
    ],
)
async def test_a_token_for_another_time_or_place_is_refused(
    tokens: AccessTokens, authority: Authority, changed: dict[str, Any]
) -> None:
    """Invariant 6: audience, issuer, subject and times are all demanded, and are exact."""
    # By hand: PyJWT does not encode all of these.
    body = json.dumps(authority.claims(**changed)).encode()
    token = jwt.api_jws.encode(body, authority.rsa, "RS256", headers={"kid": "r1"})
    assert await tokens.grant(token) is None
    assert await tokens.grant(authority.token())


async def test_keys_that_a_token_brings_along_are_not_looked_at(
    tokens: AccessTokens, authority: Authority
) -> None:
    """Invariant 6: ``jku``, ``x5u``, ``jwk``, ``x5c`` and ``crit`` in a header lead nowhere."""
    with running() as evil:
        own = public_jwk(evil.rsa, "r1")
        for kid in ("r1", "evil", f"{evil.issuer}/keys", "../../keys"):
            headers = {
                "kid": kid,
                "jku": f"{evil.issuer}/keys",
                "x5u": f"{evil.issuer}/keys",
                "jwk": own,
                "x5c": [encoded(b"x")],
            }
            token = jwt.encode(authority.claims(), evil.rsa, "RS256", headers=headers)
            assert await tokens.grant(token) is None
        unknown = authority.token(headers={"crit": ["b64"], "b64": True})
        assert await tokens.grant(unknown) is None
        assert evil.asked == []


async def test_a_flood_of_unknown_keys_does_not_make_us_ask_again_and_again(
    tokens: AccessTokens, authority: Authority, clock: Clock
) -> None:
    """Invariant 3: made-up key ids cost one question to the issuer a minute."""
    assert await tokens.grant(authority.token())
    for number in range(200):
        assert await tokens.grant(authority.token(headers={"kid": f"k{number}"})) is None
    assert authority.asked.count("/keys") == 1
    clock.now += jwks.FETCH_EVERY_S
    authority.keys[0]["kid"] = "r2"
    assert await tokens.grant(authority.token(headers={"kid": "r2"})), "a key that is really new"
    assert await tokens.grant(authority.token()) is None, "and the old one counts no more"
    assert authority.asked.count("/keys") == 2


async def test_without_the_issuers_keys_nobody_gets_in(
    tokens: AccessTokens, authority: Authority, clock: Clock
) -> None:
    """Invariant 6: an issuer that is down lets nobody in, and its old keys count for an hour."""
    keys, token = authority.keys, authority.token()
    authority.body = b"down"
    for _ in range(50):
        with pytest.raises(InfrastructureError):
            await tokens.grant(token)
    assert authority.asked.count("/keys") == 1
    authority.body, authority.keys = None, keys
    clock.now += jwks.RETRY_EVERY_S
    assert await tokens.grant(token)
    authority.body = b"down again"
    clock.now += jwks.KEEP_S - 1
    assert await tokens.grant(token), "keys are kept for a while"
    clock.now += 1
    with pytest.raises(InfrastructureError):
        await tokens.grant(token)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"keys": 7}',
        b'{"keys": [7, null, [], {}]}',
        b"[" * 100_000,
        b"x" * (jwks.MAX_BODY_BYTES + 1),
        b'{"keys": [{"kty": "RSA", "kid": "r1", "n": "AQAB", "e": "AQAB"}]}',
        b'{"keys": [{"kty": "RSA", "kid": "r1", "n": 7, "e": []}]}',
        b'{"keys": [{"kty": "EC", "kid": "r1", "crv": "P-256", "x": "AA", "y": "AA"}]}',
        b'{"keys": [{"kty": "oct", "kid": "r1", "k": "AAAA", "alg": "HS256"}]}',
    ],
)
async def test_keys_that_make_no_sense_let_nobody_in(
    tokens: AccessTokens, authority: Authority, body: bytes
) -> None:
    """Invariant 3: huge, deep, empty and malformed key sets are bounded and let nobody in."""
    authority.body = body
    with suppress(InfrastructureError):
        assert await tokens.grant(authority.token()) is None


async def test_weak_and_foreign_keys_are_not_taken(
    tokens: AccessTokens, authority: Authority
) -> None:
    """Invariant 6: short keys, and keys for another use or algorithm, verify nothing."""
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505  # on purpose
    authority.keys = [
        public_jwk(weak, "weak"),
        public_jwk(authority.rsa, "enc", use="enc"),
        public_jwk(authority.rsa, "ps", alg="PS256"),
    ]
    body = json.dumps(authority.claims()).encode()
    for key, kid in ((weak, "weak"), (authority.rsa, "enc"), (authority.rsa, "ps")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the weak key, by PyJWT
            token = jwt.api_jws.encode(body, key, "RS256", headers={"kid": kid})
        assert await tokens.grant(token) is None
    assert await tokens.grant(authority.token("PS256", headers={"kid": "ps"}))


async def test_an_issuer_speaks_for_itself_only(tokens: AccessTokens, authority: Authority) -> None:
    """Invariant 6: metadata that names another issuer is not believed."""
    authority.metadata["issuer"] = "https://somebody.else.example"
    with pytest.raises(InfrastructureError):
        await tokens.grant(authority.token())
    assert "/keys" not in authority.asked


@pytest.mark.parametrize(
    "token",
    [
        "..",
        "a.b.c",
        "é.é.é",
        "\0.\0.\0",
        ".".join((encoded(b"[" * 3000), "e30", "x")),
        ".".join((encoded({"alg": ["RS256"], "kid": ["r1"]}), "e30", "x")),
        ".".join((encoded({"alg": "RS256", "kid": {"a": 1}}), "e30", "x")),
        "a" * MAX_TOKEN + "..",
    ],
)
async def test_a_token_that_is_none_costs_nothing(
    tokens: AccessTokens, authority: Authority, token: str
) -> None:
    """Invariant 3: long, deep and broken tokens are refused without a question to anybody."""
    assert await tokens.grant(token) is None
    assert authority.asked == []


async def test_no_claim_makes_somebody_else_of_a_caller(
    tokens: AccessTokens, authority: Authority
) -> None:
    """Invariant 6: a subject is one of its issuer, so none is ``local`` or another's."""
    found = set()
    for subject in ("local", "alice", f"{authority.issuer}|u-1", "u-1"):
        grant = await tokens.grant(authority.token(sub=subject))
        assert grant is not None
        found.add(grant.principal)
    assert len(found) == 4
    assert all(principal.startswith(f"{authority.issuer}|") for principal in found)


async def test_a_revoked_application_gets_in_with_no_token_of_its_issuer(
    tokens: AccessTokens, authority: Authority, store: TokenStore
) -> None:
    """Invariant 6: what is revoked here stays out, whatever its issuer signs since."""
    grant = await tokens.grant(authority.token())
    assert grant is not None
    (known,) = store.list()
    assert (known.token_id, known.application) == (grant.token_id, "an agent")
    store.revoke(token_id=known.token_id)
    assert await tokens.grant(authority.token(jti="fresh", scope="execute")) is None
    assert await tokens.grant(authority.token(client_id="another"))
    store.allow(known.token_id)
    assert await tokens.grant(authority.token())


async def test_an_access_token_is_not_taken_for_one_of_our_own(
    tokens: AccessTokens, authority: Authority, store: TokenStore
) -> None:
    """Invariant 6: an application of an issuer has no secret here that could be met."""
    grant = await tokens.grant(authority.token())
    assert grant is not None
    for forged in (f"sbx_{grant.token_id}_", f"sbx_{grant.token_id}_{'A' * 43}"):
        assert await store.grant(forged) is None


async def test_refusals_say_where_a_token_is_to_be_had_and_which(
    settings: Settings, tokens: AccessTokens, authority: Authority
) -> None:
    """Invariant 6: no, a wrong and a narrow token are told apart, and none gets through."""

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(scope["sandbox.grant"].principal)(scope, receive, send)

    denied: list[str] = []
    gate = Gate(
        behind,
        tokens,
        security_settings(settings),
        lambda check, client: denied.append(check),
        protected_resource(settings),
    )
    metadata = 'resource_metadata="https://sandbox.example.org/.well-known/oauth-protected-resource'
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(gate), base_url="http://localhost")
    without = await http.get("/mcp/v1")
    assert without.status_code == 401
    assert metadata in without.headers["www-authenticate"]
    assert "error" not in without.headers["www-authenticate"]
    headers = {"Authorization": f"Bearer {authority.token(aud='x')}"}
    wrong = await http.get("/mcp/v1", headers=headers)
    assert wrong.status_code == 401
    assert 'error="invalid_token"' in wrong.headers["www-authenticate"]
    headers = {"Authorization": f"Bearer {authority.token()}"}
    assert (await http.get("/mcp/v1", headers=headers)).status_code == 200
    call = {"Mcp-Method": "tools/call", "Mcp-Name": "execute_code"}
    little = await http.post("/mcp/v1", headers=headers | call)
    assert little.status_code == 403
    assert 'error="insufficient_scope"' in little.headers["www-authenticate"]
    assert 'scope="execute"' in little.headers["www-authenticate"]
    assert denied == ["token", "token", "scope"]
    await http.aclose()
