"""TLS in front of Postgres and Redis with a certificate of its own, since the servers of tests speak none."""

import asyncio
import contextlib
import datetime as dt
import ipaddress
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.tcp_server import listening_in_thread

# Request of libpq before it begins TLS: length 8, request 80877103.
SSL_REQUEST = (8).to_bytes(4, "big") + (80_877_103).to_bytes(4, "big")


@dataclass
class Certificate:
    """Self-signed certificate of 127.0.0.1 or of a name, in files."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def self_signed(directory: Path, name: str, host: str | None = None) -> Certificate:
    """Make a new certificate, of 127.0.0.1 or of a host; a client that trusts another one must refuse it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    alternative = x509.IPAddress(ipaddress.ip_address("127.0.0.1")) if host is None else x509.DNSName(host)
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    found = Certificate(directory / f"{name}.pem", directory / f"{name}.key")
    found.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    found.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return found


@contextlib.contextmanager
def behind_tls(url: str, certificate: Certificate) -> Iterator[str]:
    """Return the URL of the same server behind TLS: Postgres as libpq asks for it, Redis from the first byte."""
    parts = urlsplit(url)
    is_postgres = parts.scheme.startswith("postgres")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with (
            contextlib.closing(writer),
            contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError),
        ):
            if is_postgres:
                assert await reader.readexactly(len(SSL_REQUEST)) == SSL_REQUEST
                writer.write(b"S")
                await writer.start_tls(certificate.context())
            inward, outward = await asyncio.open_connection(parts.hostname, parts.port)
            with contextlib.closing(outward):
                await asyncio.wait(
                    [asyncio.create_task(_pass_on(reader, outward)), asyncio.create_task(_pass_on(inward, writer))],
                    return_when=asyncio.FIRST_COMPLETED,
                )

    user_info = parts.netloc.rpartition("@")[0]
    scheme = parts.scheme if is_postgres else "rediss"
    with listening_in_thread(serve, None if is_postgres else certificate.context()) as address:
        yield urlunsplit(parts._replace(scheme=scheme, netloc=f"{user_info}@{address}" if user_info else address))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ssl.SSLError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
