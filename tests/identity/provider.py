"""An OpenID provider of the tests' own: a real HTTP server on a port, with real keys, that signs real tokens."""

import base64
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

AUDIENCE = "pagewalk"
ALGORITHMS = get_default_algorithms()


def make_key(alg: str, bits: int = 2048) -> Any:
    """A private key that an algorithm signs with."""
    if alg.startswith("ES"):
        curves: Mapping[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1()}
        return ec.generate_private_key(curves[alg])
    return ed25519.Ed25519PrivateKey.generate() if alg == "EdDSA" else rsa.generate_private_key(65537, bits)


class Provider:
    """What a university's sign-in service is to us.

    Attributes
    ----------
    keys : dict
        Private keys by kid, with their algorithms.
    published : list
        The key set; `rotate` changes it.
    discovery : dict or bytes
        What the discovery document says.
    asked : list
        The paths that were fetched.
    """

    def __init__(self) -> None:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(self.path)
                status, body = provider.answer(self.path)
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", provider.url + "/elsewhere")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.asked: list[str] = []
        self.keys: dict[str, tuple[str, Any]] = {}
        self.published: list[dict[str, Any]] = []
        self._handler = Handler
        self.start(0)
        self.url = f"http://127.0.0.1:{self.port}"
        self.status = 200
        self.discovery: Any = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}

    def start(self, port: int) -> None:
        """Answer on a port."""
        self.server = ThreadingHTTPServer(("127.0.0.1", port), self._handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self) -> None:
        """Be gone: the port is closed."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, path: str) -> tuple[int, bytes]:
        """What a path is answered."""
        found = {"/.well-known/openid-configuration": self.discovery, "/keys": {"keys": self.published}}.get(path)
        if found is None:
            return 404, b""
        return self.status, found if isinstance(found, bytes) else json.dumps(found).encode()

    def rotate(self, kid: str, alg: str = "RS256", bits: int = 2048, keep: bool = False, **more: Any) -> None:
        """Publish a new key, beside the others or in their place."""
        key = make_key(alg, bits)
        self.keys[kid] = alg, key
        public = {**ALGORITHMS[alg].to_jwk(key.public_key(), as_dict=True), "kid": kid, **more}
        self.published = [*self.published, public] if keep else [public]

    def claims(self, name: str = "ada", **more: Any) -> dict[str, Any]:
        """What a token says; None takes a claim away."""
        now = int(time.time())
        found = {"iss": self.url, "aud": AUDIENCE, "sub": name, "iat": now, "exp": now + 600, **more}
        return {key: value for key, value in found.items() if value is not None}

    def token(self, name: str = "ada", kid: str = "one", header: Mapping[str, Any] | None = None, **more: Any) -> str:
        """A token that the provider signs."""
        alg, key = self.keys[kid]
        return jwt.encode(self.claims(name, **more), key, alg, {"kid": kid, **(header or {})})


def segment(value: Any) -> str:
    """A part of a token, unsigned."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextmanager
def providing() -> Iterator[Provider]:
    """A running provider with one RSA key."""
    provider = Provider()
    provider.rotate("one")
    try:
        yield provider
    finally:
        provider.stop()
