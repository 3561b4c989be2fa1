"""Parse the networks and hosts to which webhooks may lead although they are private; without a library of HTTP."""

import ipaddress
from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

LONGEST_HOST: Final = 253


class Allowed(NamedTuple):
    networks: tuple[Network, ...]
    hosts: frozenset[str]


def parse_allowed(entries: Iterable[str]) -> Allowed:
    """Return the networks and the lower-case names. Raises ValueError for an entry that is neither."""
    networks: list[Network] = []
    hosts: set[str] = set()
    for entry in entries:
        try:
            networks.append(ipaddress.ip_network(entry, strict=False))
        except ValueError:
            if not _is_host(entry):
                raise ValueError(f"{entry!r} is neither a network like 10.0.0.0/8 nor a host name") from None
            hosts.add(entry.lower().rstrip("."))
    return Allowed(tuple(networks), frozenset(hosts))


def _is_host(entry: str) -> bool:
    name = entry.rstrip(".")
    return 0 < len(name) <= LONGEST_HOST and name.isascii() and all(_is_label(label) for label in name.split("."))


def _is_label(label: str) -> bool:
    return 0 < len(label) <= 63 and label.strip("-") == label and label.replace("-", "").replace("_", "").isalnum()
