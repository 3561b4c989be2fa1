"""Headers and contents of answers: browser restrictions, the public description, and nothing internal."""

from collections.abc import Iterator

import pytest

from models.core.callers import Role
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.callers import client_with, make_key
from tests.support.db_verbs import DbVerbs
from tests.support.web import WebInThread, served

PAGE = "http://localhost:3000"


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings.model_copy(update={"auth": True})) as web:
        yield web


def test_answers_restrict_browsers(web: WebInThread) -> None:
    """Set the headers on refusals and unknown paths too; only /docs may load scripts, and its own."""
    for path in ("/health", "/runs", "/nothing"):
        headers = web.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert "script-src 'self'" in web.client.get("/docs").headers["content-security-policy"]


def test_foreign_pages_may_not_read_answers_with_authentication(settings: Settings, db: DbVerbs) -> None:
    """Allow named origins; loopback pages may before the first key is made."""
    with served(settings) as web:
        assert web.client.http.get("/runs", headers={"Origin": PAGE}).headers["access-control-allow-origin"] == PAGE
        key = make_key(db, Role.ADMIN)
        eventually(lambda: web.client.get("/runs").status_code == 401, what="authentication")
        with client_with(web.client.url, key) as client:
            answer = client.http.get("/runs", headers={"Origin": PAGE})
            assert answer.status_code == 200
            assert "access-control-allow-origin" not in answer.headers
            asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
            assert "access-control-allow-origin" not in client.http.options("/runs", headers=asked).headers
    with served(settings.model_copy(update={"auth": True, "cors_origins": (PAGE,)})) as web:
        asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        assert web.client.http.options("/runs", headers=asked).headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize("name", ["traceparent", "tracestate", "baggage", "x-request-id", "cache-control"])
def test_preflight_with_header_of_tracing_library_passes(settings: Settings, name: str) -> None:
    """Browsers' HTTP clients add such headers; a refused preflight stops the whole request."""
    with served(settings) as web:
        asked = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
        headers = {**asked, "Access-Control-Request-Headers": f"content-type,{name}"}
        answer = web.client.http.options("/runs", headers=headers)
        assert answer.status_code == 200, answer.text
        assert name in answer.headers["access-control-allow-headers"].lower()
        refused = web.client.http.options("/runs", headers={**asked, "Access-Control-Request-Headers": "x-other"})
        assert refused.status_code == 400


def test_description_is_public_only_by_setting(settings: Settings, web: WebInThread) -> None:
    """Set COORDINATOR_PUBLIC_DOCS; metrics stay with admins, health is always public and short."""
    for path in ("/docs", "/openapi.json", "/metrics"):
        assert web.client.get(path).status_code == 401
    assert web.client.get("/health").json() == {"status": "healthy"}
    with served(settings.model_copy(update={"auth": True, "public_docs": True})) as shown:
        assert shown.client.get("/docs").status_code == 200
        assert shown.client.get("/openapi.json").status_code == 200
        assert shown.client.get("/metrics").status_code == 401


def test_unexpected_error_reveals_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer without trace and SQL; both are in the log."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("SELECT secret FROM sessions")

    with served(settings) as web:
        monkeypatch.setattr("app.routes.sessions.SessionFilter", broken)
        answer = web.client.get("/sessions")
    assert answer.status_code == 500
    assert answer.json() == {"detail": "Internal server error"}
