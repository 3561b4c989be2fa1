"""Decide to which addresses messages to webhooks may go: public ones over https, and those that the operator allows."""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from runtime.webhooks.allowed import LONGEST_HOST, Network, parse_allowed

if TYPE_CHECKING:
    import httpx

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

LONGEST_URL: Final = 2_000
# All of an attempt: look-up, connection and answer.
ATTEMPT_SECONDS: Final = 10.0
# Ranges that lead to an IPv4 address, whatever it is, and those that some versions of Python take for public.
_REFUSED: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "240.0.0.0/4",
        "::/96",
        "::ffff:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/23",
        "2002::/16",
        "fec0::/10",
    )
)


class TargetRefused(Exception):
    """The address may not be used; the text says what to change, and no address that a name resolves to."""


class Unresolved(Exception):
    """The name has no address now."""


@dataclass(frozen=True, slots=True)
class Target:
    """Parsed address of a webhook: host in ASCII, as it is sent in ``Host`` and in the TLS handshake."""

    url: "httpx.URL"
    host: str
    port: int


class Targets:
    """Rules for addresses. ``allow``: networks in CIDR notation and host names that may be private, and use http.

    Raises ValueError for an entry that is neither.
    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        allowed = parse_allowed(allow)
        self._networks, self._hosts = allowed.networks, allowed.hosts

    def parse(self, url: str) -> Target:
        """Return the target of an address that may be used as far as its text says. Raises TargetRefused."""
        import httpx  # noqa: PLC0415  # slow, and most web processes check no address

        if len(url) > LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
            raise TargetRefused(f"Should be a URL of at most {LONGEST_URL} printable ASCII characters")
        try:
            parsed = httpx.URL(url)
            host = parsed.raw_host.decode("ascii")
        except (httpx.InvalidURL, ValueError, UnicodeError):
            raise TargetRefused("Should be a URL like https://example.com/hook") from None
        if parsed.scheme not in {"https", "http"} or not host or len(host) > LONGEST_HOST:
            raise TargetRefused("Should be a URL like https://example.com/hook")
        if parsed.userinfo or parsed.fragment:
            raise TargetRefused("Should have neither user and password nor a fragment")
        port = (443 if parsed.scheme == "https" else 80) if parsed.port is None else parsed.port
        if not 1 <= port <= 65_535:
            raise TargetRefused("Should have a port from 1 to 65535")
        target = Target(parsed, host, port)
        literal = _literal(host)
        if literal is not None:
            self._check(target, [literal])
        elif parsed.scheme == "http" and not self._networks and not self._is_allowed_host(host):
            raise TargetRefused("Should be https")
        return target

    async def resolve(self, target: Target) -> list[str]:
        """Return the addresses to connect to, after all were checked. Raises TargetRefused, Unresolved.

        Connect to one of them, not to the name: a second look-up may give others.
        """
        literal = _literal(target.host)
        if literal is None:
            loop = asyncio.get_running_loop()
            try:
                found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError):
                raise Unresolved("The name does not resolve") from None
            addresses = [ipaddress.ip_address(entry[4][0]) for entry in found]
        else:
            addresses = [literal]
        if not addresses:
            raise Unresolved("The name does not resolve")
        self._check(target, addresses)
        return list(dict.fromkeys(map(str, addresses)))

    def _check(self, target: Target, addresses: Sequence[Address]) -> None:
        if self._is_allowed_host(target.host):
            return
        allowed = [self._is_in_network(address) for address in addresses]
        if target.url.scheme == "http" and not all(allowed):
            raise TargetRefused("Should be https")
        for address, is_allowed in zip(addresses, allowed, strict=True):
            if not is_allowed and not is_public(address):
                raise TargetRefused("Should lead to public addresses only (COORDINATOR_WEBHOOK_ALLOW names others)")

    def _is_allowed_host(self, host: str) -> bool:
        return host.lower().rstrip(".") in self._hosts

    def _is_in_network(self, address: Address) -> bool:
        mapped = getattr(address, "ipv4_mapped", None)
        return any(
            network.version == candidate.version and candidate in network
            for candidate in (address, mapped)
            if candidate is not None
            for network in self._networks
        )


def is_public(address: Address) -> bool:
    """Return whether an address is of the public internet: not private, loopback, link-local, shared, multicast,
    reserved, or one that stands for an IPv4 address.
    """
    if getattr(address, "scope_id", None) is not None:
        return False
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    return not any(network.version == address.version and address in network for network in _REFUSED)


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
