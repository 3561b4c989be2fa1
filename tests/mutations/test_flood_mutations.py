"""Break one bound on floods on purpose: its scenario must notice."""

import pytest

from app.auth.permissions import PERMISSIONS
from app.http.body_limits import Uploads
from runtime.settings import Settings
from tests.integration import test_http_floods, test_http_lists
from tests.support.db_verbs import DbVerbs
from tests.support.web import served
from tests.unit import test_permissions


def test_unbounded_bodies_are_noticed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read each body on, whatever the others hold."""
    monkeypatch.setattr(Uploads, "_may_take", lambda *_: True)
    with (
        served(settings.model_copy(update={"bodies_bytes": 200_000})) as web,
        pytest.raises(AssertionError, match="the second body waits"),
    ):
        test_http_floods.body_beyond_the_bound_waits(web)


def test_unbounded_pages_are_noticed(settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows alone do not bound a page."""
    monkeypatch.setattr("models.runs.lists.PAGE_BYTES", 1 << 40)
    with served(settings) as web, pytest.raises(AssertionError):
        test_http_lists.unread_list_holds_one_page(web, db, monkeypatch)


def test_write_without_quota_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new write would be registered like this by default."""
    name = "POST /sessions/{session_id}/bind"
    monkeypatch.setitem(PERMISSIONS, name, PERMISSIONS["GET /sessions"])
    with pytest.raises(AssertionError):
        test_permissions.test_every_write_route_names_its_limit_and_no_read_does()
