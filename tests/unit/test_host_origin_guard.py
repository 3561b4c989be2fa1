"""Check that foreign Host and Origin headers are refused while authentication is off."""

from collections.abc import Mapping
from types import MappingProxyType

import pytest

from app.http.origins import MOST_KNOWN, HostOriginGuard


def status_of(
    host: str,
    origin: str = "",
    path: str = "/runs",
    hosts: tuple[str, ...] = (),
    origins: tuple[str, ...] = (),
    method: str = "GET",
    fetch: Mapping[str, str] = MappingProxyType({}),
    own_name: str = "",
) -> int:
    headers = [(b"host", host.encode())] + ([(b"origin", origin.encode())] if origin else [])
    headers += [(f"sec-fetch-{name}".encode(), value.encode()) for name, value in fetch.items()]
    scope = {"type": "http", "path": path, "headers": headers, "method": method}
    return 200 if HostOriginGuard(hosts, origins, own_name=own_name).refusal(scope) is None else 403


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8765", "127.0.0.1:8765", "127.3.2.1", "[::1]:8765", "LOCALHOST"]
)
def test_loopback_hosts_are_accepted_with_any_port(host: str) -> None:
    assert status_of(host) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.1", "", "[::1", "127.0.0.1.evil.example"]
)
def test_foreign_hosts_are_refused(host: str) -> None:
    """Stop web pages whose name resolves to 127.0.0.1 from starting runs."""
    assert status_of(host) == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost.evil.example", "file://"])
def test_foreign_origins_are_refused(origin: str) -> None:
    """Stop web pages that post to localhost across origins."""
    assert status_of("localhost", origin) == 403


def test_loopback_origins_are_accepted() -> None:
    """A dashboard in development is served from another port."""
    assert status_of("localhost:8765", "http://localhost:3000") == 200


def test_health_is_exempt() -> None:
    """Load balancers ask by address, with any Host."""
    assert status_of("10.0.0.1", path="/health/ready") == 200


def test_scrapers_may_name_a_process_by_its_address() -> None:
    """Prometheus sends the address, or the name in /metrics/targets, as Host. A page's name that resolves to us is
    neither.
    """
    assert status_of("10.0.0.1:8765", path="/metrics/cluster") == 200
    assert status_of("[fd00::1]:8765", path="/metrics") == 200
    assert status_of("evil.example", path="/metrics") == 403
    assert status_of("Web-1:8765", path="/metrics", own_name="web-1") == 200
    assert status_of("web-1:8765", path="/runs", own_name="web-1") == 403
    assert status_of("web-2:8765", path="/metrics", own_name="web-1") == 403
    assert status_of("[::1", path="/metrics") == 403
    assert status_of("10.0.0.1:8765", "http://evil.example", path="/metrics") == 403
    assert status_of("10.0.0.1:8765", path="/metrics", fetch={"site": "cross-site"}) == 403


def test_settings_add_names() -> None:
    """Read COORDINATOR_ALLOWED_HOSTS and COORDINATOR_CORS_ORIGINS."""
    assert status_of("lb", hosts=("lb",)) == 200
    assert status_of("lb", "http://lb", hosts=("lb",)) == 200
    assert status_of("localhost", "https://dash.example", origins=("https://dash.example",)) == 200
    assert status_of("localhost", "https://other.example", origins=("https://dash.example",)) == 403


FOREIGN = {"site": "cross-site"}
IMAGE = {"mode": "no-cors", "dest": "image"}
LINK = {"mode": "navigate", "dest": "document"}
FRAME = {"mode": "navigate", "dest": "iframe"}


@pytest.mark.parametrize("fetch", [IMAGE, LINK, FRAME, {"mode": "no-cors", "dest": "script"}, {}])
def test_other_site_without_origin_is_refused(fetch: dict[str, str]) -> None:
    """An `<img src=…/runner/runs?…>` would claim a run."""
    assert status_of("localhost:8765", path="/runner/runs", fetch=FOREIGN | fetch) == 403
    assert status_of("localhost:8765", path="/runner/runs", fetch={"site": "whatever"} | fetch) == 403


@pytest.mark.parametrize("site", ["same-origin", "none"])
@pytest.mark.parametrize("fetch", [IMAGE, LINK, {"mode": "cors", "dest": "empty"}])
def test_own_pages_and_typed_addresses_are_accepted(site: str, fetch: dict[str, str]) -> None:
    """Accept also clients that send no such header, which are no browsers."""
    assert status_of("localhost:8765", fetch={"site": site} | fetch) == 200
    assert status_of("localhost:8765") == 200


@pytest.mark.parametrize(
    ("host", "origin", "site"),
    [
        ("localhost:8765", "http://localhost:3000", "same-site"),
        ("localhost:8765", "http://127.0.0.1:3000", "cross-site"),
        ("127.0.0.1:8765", "http://localhost:3000", "cross-site"),
    ],
)
def test_dashboard_on_another_port_is_accepted(host: str, origin: str, site: str) -> None:
    """Accept CORS requests, which name their origin, and their preflights."""
    fetch = {"site": site, "mode": "cors", "dest": "empty"}
    assert status_of(host, origin, fetch=fetch) == 200
    assert status_of(host, origin, fetch=fetch, method="OPTIONS") == 200


def test_named_origin_may_call_across_sites() -> None:
    """Read COORDINATOR_CORS_ORIGINS."""
    named = {"site": "cross-site", "mode": "cors", "dest": "empty"}
    assert status_of("localhost", "https://dash.example", origins=("https://dash.example",), fetch=named) == 200


def test_sibling_of_a_common_domain_is_another_site() -> None:
    """Ports of one loopback address share a machine; names under one domain need not."""
    assert status_of("localhost:8765", fetch={"site": "same-site"} | IMAGE) == 200
    assert status_of("jobs.example.com", hosts=("jobs.example.com",), fetch={"site": "same-site"} | IMAGE) == 403
    assert status_of("jobs.example.com", hosts=("jobs.example.com",), fetch={"site": "same-origin"} | IMAGE) == 200


def test_cross_site_links_reach_the_reference_only() -> None:
    """Refuse them in frames and with other methods."""
    for path in ("/docs", "/openapi.json"):
        assert status_of("localhost", path=path, fetch=FOREIGN | LINK) == 200
        assert status_of("localhost", path=path, fetch=FOREIGN | FRAME) == 403
        assert status_of("localhost", path=path, fetch=FOREIGN | IMAGE) == 403
        assert status_of("localhost", path=path, method="POST", fetch=FOREIGN | LINK) == 403
    assert status_of("localhost", path="/docs/../runs", fetch=FOREIGN | LINK) == 403


def test_remembered_hosts_are_bounded_and_oldest_goes() -> None:
    """Made-up names neither grow the cache nor evict real ones for good."""
    guard = HostOriginGuard((), ())
    for number in range(3 * MOST_KNOWN):
        assert guard._remembered(f"{number}.evil.example", "") is not None
    assert guard._remembered("localhost", "") is None
    known = guard._remembered.cache_info()
    assert (known.currsize, known.maxsize) == (MOST_KNOWN, MOST_KNOWN)
    assert guard._remembered("localhost", "") is None
    assert guard._remembered.cache_info().hits == known.hits + 1
    assert status_of(f"{'x' * 60_000}.evil.example") == 403
