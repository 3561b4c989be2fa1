"""OIDC issuer of a test: keys of its own, its two documents over HTTP, and tokens, good and forged."""

import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from testkit.ports import own_port

AUDIENCE = "coordinator"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def ec_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve or ec.SECP256R1())


def described(key: PrivateKey, key_id: str) -> dict[str, Any]:
    """Return the public half as a key set shows it."""
    if isinstance(key, rsa.RSAPrivateKey):
        description = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        description = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return dict(description) | {"kid": key_id, "use": "sig"}


def public_pem(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def part(document: Mapping[str, Any]) -> str:
    """Encode one part of a token by hand: for what no library would write."""
    return urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


@dataclass
class IssuerOfTests:
    """Issuer that serves while it is up; ``asked`` counts the requests for its keys."""

    port: int = field(default_factory=own_port)
    keys: dict[str, PrivateKey] = field(default_factory=lambda: {"rsa": rsa_key(), "ec": ec_key()})
    # Status and body to answer instead of the key set.
    instead: tuple[int, bytes] | None = None
    asked: int = 0
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings of a coordinator that trusts it."""
        return {"oidc_issuer": self.url, "oidc_audience": AUDIENCE}

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Return the claims of a good user token; a value of None removes one."""
        now = int(time.time())
        usual = {"iss": self.url, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 600}
        return {
            name: one for name, one in (usual | {"permissions": ["user:runs"]} | changed).items() if one is not None
        }

    def token(self, key_id: str = "rsa", headers: Mapping[str, Any] | None = None, **changed: Any) -> str:
        key = self.keys[key_id]
        algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
        return jwt.encode(self.claims(**changed), key, algorithm, {"kid": key_id, **(headers or {})})

    def start(self) -> None:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(*issuer.answer(self.path))

            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self._send(*issuer.answer_form(self.path, form.decode(), self.headers.get("Authorization", "")))

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", body.decode())
                elif body.startswith(b"<"):
                    self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer_form(self, path: str, form: str, authorization: str) -> tuple[int, bytes]:
        """Return status and body of the answer to a POST."""
        return 405, f"{path} {len(form)} {len(authorization)}".encode()

    def about(self) -> dict[str, Any]:
        """Return the discovery document."""
        return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}

    def answer(self, path: str) -> tuple[int, bytes]:
        """Return status and body of the answer to a GET; the body of a redirect is its address."""
        if path == "/.well-known/openid-configuration":
            return 200, json.dumps(self.about()).encode()
        self.asked += 1
        keys = [described(key, key_id) for key_id, key in self.keys.items()]
        return self.instead or (200, json.dumps({"keys": keys}).encode())


@contextmanager
def issuing() -> Iterator[IssuerOfTests]:
    issuer = IssuerOfTests()
    issuer.start()
    try:
        yield issuer
    finally:
        issuer.stop()


def forgeries(issuer: IssuerOfTests) -> dict[str, str]:
    """Return invalid tokens, by their fault."""
    now = int(time.time())
    foreign_key, good = rsa_key(), issuer.token()
    header, payload, signature = good.split(".")
    admin = part(issuer.claims(permissions=["admin:full"]))
    secret = jwt.utils.base64url_encode  # Sign HS256 by hand: the library refuses a public key as a secret.
    tokens = {
        "expired": issuer.token(exp=now - 60),
        "expired long ago": issuer.token(exp=0),
        "not yet": issuer.token(nbf=now + 600),
        "made in the future": issuer.token(iat=now + 600),
        "another audience": issuer.token(aud="another"),
        "no audience": issuer.token(aud=[]),
        "another issuer": issuer.token(iss="http://127.0.0.1:1"),
        "the issuer with a slash": issuer.token(iss=issuer.url + "/"),
        "exp is a text": issuer.token(exp="soon"),
        "exp is infinite": f"{header}.{part(issuer.claims(exp=float('inf')))}.{signature}",
        "sub is a number": issuer.token(sub=7),
        "another key under the same name": jwt.encode(issuer.claims(), foreign_key, "RS256", {"kid": "rsa"}),
        "an unknown key": jwt.encode(issuer.claims(), foreign_key, "RS256", {"kid": "none"}),
        "brings its own key": jwt.encode(
            issuer.claims(), foreign_key, "RS256", {"kid": "none", "jwk": described(foreign_key, "none")}
        ),
        "says where its key is": jwt.encode(issuer.claims(), foreign_key, "RS256", {"kid": "none", "jku": issuer.url}),
        "another curve": jwt.encode(issuer.claims(), ec_key(ec.SECP384R1()), "ES384", {"kid": "ec"}),
        "the other algorithm's key": jwt.encode(issuer.claims(), foreign_key, "RS256", {"kid": "ec"}),
        "RS512": jwt.encode(issuer.claims(), issuer.keys["rsa"], "RS512", {"kid": "rsa"}),
        "an extension": issuer.token(headers={"crit": ["exp"]}),
        "alg none": f"{part({'alg': 'none', 'kid': 'rsa'})}.{admin}.",
        "alg None": f"{part({'alg': 'None', 'kid': 'rsa'})}.{admin}.{signature}",
        "no alg": f"{part({'kid': 'rsa'})}.{admin}.{signature}",
        "alg is a list": f"{part({'alg': ['RS256'], 'kid': 'rsa'})}.{admin}.{signature}",
        "kid is a list": f"{part({'alg': 'RS256', 'kid': ['rsa']})}.{admin}.{signature}",
        "other claims": f"{header}.{admin}.{signature}",
        "no signature": f"{header}.{payload}.",
        "truncated": good[:-20],
        "one bit": f"{header}.{payload}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}",
        "NUL inside": f"{header}.{secret(b'{%s}' % bytes(1)).decode()}.{signature}",
        "no JSON": f"{secret(b'text').decode()}.{payload}.{signature}",
        "deep": f"{secret(b'[' * 5000).decode()}.{payload}.{signature}",
        "HS256 with the public key": _hs256(admin, public_pem(issuer.keys["rsa"])),
        "HS256 with the described key": _hs256(admin, json.dumps(described(issuer.keys["rsa"], "rsa")).encode()),
        "HS256 with nothing": _hs256(admin, b""),
    }
    missing = {f"without {claim}": _without(issuer, claim) for claim in ("exp", "iat", "iss", "aud", "sub")}
    return tokens | missing


def _without(issuer: IssuerOfTests, claim: str) -> str:
    claims = {name: value for name, value in issuer.claims().items() if name != claim}
    return jwt.encode(claims, issuer.keys["rsa"], "RS256", {"kid": "rsa"})


def _hs256(payload: str, secret: bytes) -> str:
    signed = f"{part({'alg': 'HS256', 'kid': 'rsa', 'typ': 'JWT'})}.{payload}"
    algorithm = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    return f"{signed}.{jwt.utils.base64url_encode(algorithm.sign(signed.encode(), secret)).decode()}"
