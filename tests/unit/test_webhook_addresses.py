"""Addresses to which messages to webhooks may go, and the signature that they have."""

import socket
from datetime import UTC, datetime
from typing import Any

import pytest

from runtime.settings import Settings
from runtime.webhooks.addresses import TargetRefused, Targets, Unresolved
from runtime.webhooks.signing import signed_headers

PUBLIC_ONLY = "public addresses only"
REFUSED = [
    ("http://example.com/", "https"),
    ("ftp://example.com/", "URL like"),
    ("https://", "URL like"),
    ("example.com", "URL like"),
    ("https://user:word@example.com/", "user and password"),
    ("https://example.com/#part", "fragment"),
    ("https://example.com:0/", "port"),
    ("https://example.com:99999/", "port|URL like"),
    ("https://exam ple.com/", "printable"),
    ("https://example.com/\x00", "printable"),
    ("https://münchen.example/", "ASCII"),
    ("https://example.com/" + "x" * 2_000, "at most 2000"),
    *(
        (f"https://{host}/", PUBLIC_ONLY)
        for host in (
            "127.0.0.1",
            "127.255.0.9:8443",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "[::]",
            "[::1]",
            "[fe80::1]",
            "[fe80::1%25eth0]",
            "[fd00::1]",
            "[fec0::1]",
            "[ff02::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:8.8.8.8]",
            "[::7f00:1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[2001::1]",
        )
    ),
]


@pytest.mark.parametrize(("url", "reason"), REFUSED)
def test_private_or_unusable_address_is_refused(url: str, reason: str) -> None:
    with pytest.raises(TargetRefused, match=reason):
        Targets().parse(url)


def _resolving(patch: pytest.MonkeyPatch, *addresses: str) -> None:
    def getaddrinfo(host: str, port: Any, *_: Any, **__: Any) -> list[Any]:
        if not addresses:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    patch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    "addresses", [["10.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::ffff:10.0.0.1"], ["fe80::1%lo"], ["169.254.169.254"]]
)
async def test_name_that_leads_to_private_address_is_refused(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refuse it also if only one of its addresses is private, and name none of them."""
    _resolving(monkeypatch, *addresses)
    targets = Targets()
    with pytest.raises(TargetRefused, match=PUBLIC_ONLY) as refused:
        await targets.resolve(targets.parse("https://hooks.example/"))
    assert not any(address in str(refused.value) for address in addresses)


async def test_public_and_allowed_addresses_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Return each address once; http and private ones only as far as they are allowed."""
    targets = Targets(["10.0.0.0/8", "hooks.intern"])
    _resolving(monkeypatch, "8.8.8.8", "2606:4700::1111", "8.8.8.8")
    assert await targets.resolve(targets.parse("https://hooks.example/")) == ["8.8.8.8", "2606:4700::1111"]
    with pytest.raises(TargetRefused, match="https"):
        await targets.resolve(targets.parse("http://hooks.example/"))
    _resolving(monkeypatch, "10.0.0.1")
    assert await targets.resolve(targets.parse("http://hooks.example/")) == ["10.0.0.1"]
    _resolving(monkeypatch, "192.168.0.1")
    assert await targets.resolve(targets.parse("http://Hooks.Intern:80/")) == ["192.168.0.1"]
    _resolving(monkeypatch)
    with pytest.raises(Unresolved):
        await targets.resolve(targets.parse("https://hooks.example/"))
    assert await targets.resolve(targets.parse("http://10.1.1.1:8080/")) == ["10.1.1.1"]


def test_setting_names_networks_and_hosts() -> None:
    assert Settings(webhook_allow="10.0.0.0/8, hooks.intern").webhook_allow == ("10.0.0.0/8", "hooks.intern")  # type: ignore[arg-type]  # as the environment gives it
    with pytest.raises(ValueError, match="neither a network"):
        Settings(webhook_allow=("http://x",))


def test_signature_is_that_of_the_specification() -> None:
    """Compare with the vector that its libraries test."""
    at = datetime.fromtimestamp(1614265330, UTC)
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = signed_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", at, '{"test": 2432232314}', [secret, secret])
    assert headers["webhook-timestamp"] == "1614265330"
    assert headers["webhook-signature"].split() == ["v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="] * 2
