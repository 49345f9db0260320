"""An authorization server on loopback: its metadata, its keys, and the tokens that it signs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

AUDIENCE = "https://sandbox.example.org/mcp/v1"


class Authority:
    """A running authorization server with one RSA and one EC key.

    Args:
        issuer: Its URL.
    """

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.asked: list[str] = []
        """The paths that were asked for."""
        self.metadata: dict[str, Any] = {"issuer": issuer, "jwks_uri": f"{issuer}/keys"}
        self.keys: list[dict[str, Any]] = [
            public_jwk(self.rsa, "r1"),
            public_jwk(self.ec, "e1"),
        ]
        self.body: bytes | None = None
        """What is answered instead of the keys."""

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Those of a token that counts; None leaves one out."""
        now = int(time.time())
        usual = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": "u-1",
            "client_id": "an agent",
            "scope": "files:read",
            "iat": now,
            "exp": now + 300,
        }
        return {name: value for name, value in (usual | changed).items() if value is not None}

    def token(
        self, algorithm: str = "RS256", *, headers: dict[str, Any] | None = None, **changed: Any
    ) -> str:
        """A token that it signs."""
        key, key_id = (self.ec, "e1") if algorithm == "ES256" else (self.rsa, "r1")
        return jwt.encode(
            self.claims(**changed), key, algorithm, headers={"kid": key_id, **(headers or {})}
        )

    def answer(self, path: str) -> bytes | None:
        """The body of an answer; None when there is nothing at that path."""
        self.asked.append(path)
        if path == "/keys":
            return self.body if self.body is not None else json.dumps({"keys": self.keys}).encode()
        if path == "/.well-known/oauth-authorization-server":
            return json.dumps(self.metadata).encode()
        return None


def public_jwk(key: Any, key_id: str, **more: Any) -> dict[str, Any]:
    """The public half of a key as an authorization server shows it."""
    kind = jwt.algorithms.RSAAlgorithm if hasattr(key, "decrypt") else jwt.algorithms.ECAlgorithm
    return {**kind.to_jwk(key.public_key(), as_dict=True), "kid": key_id, "use": "sig", **more}


@contextmanager
def running() -> Iterator[Authority]:
    """An authorization server for the time of a block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = authority.answer(self.path)
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        authority = Authority(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield authority
        finally:
            server.shutdown()
            thread.join()
