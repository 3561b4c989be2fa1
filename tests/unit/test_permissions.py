"""Check that the permission table lists exactly the endpoints that exist and decides as `authenticate` does."""

import pytest

from app.auth.outages import _POLICIES, OutagePolicy
from app.auth.permissions import ADMINS_ONLY, PERMISSIONS, Counted, Permission, access_table, endpoints
from app.endpoint import Endpoint
from app.main import create_app
from models.core.callers import Role
from runtime.settings import Settings
from scripts.access_table import PAGE, with_table


def test_permission_table_lists_exactly_the_endpoints() -> None:
    """An endpoint without a row is for admins only."""
    there = endpoints(create_app(Settings()).routes)
    assert len(there) == len(set(there))
    assert set(there) == set(PERMISSIONS)


def test_every_route_authenticates() -> None:
    """Reject routes added past app/http/endpoint.py; files of the API reference and of the console are exempt."""
    doorless = [route for route in create_app(Settings()).routes if not isinstance(route, Endpoint)]
    assert [getattr(route, "path", "") for route in doorless] == ["/static/docs", "/", "/console", "/console"]


def test_only_health_and_sign_in_are_public() -> None:
    assert {name for name, permission in PERMISSIONS.items() if permission.public} == {
        "GET /health",
        "GET /health/live",
        "GET /health/ready",
        "POST /console/session",
        "GET /console/sign-in",
        "GET /console/sign-in/methods",
        "GET /console/callback",
    }


@pytest.mark.parametrize("role", Role)
def test_role_without_permission_is_refused(role: Role) -> None:
    assert Permission(admin=None).allows(role) is False
    assert Permission("a", "b", "c").allows(role) is True


def test_table_shows_unlisted_endpoint_as_admin_only() -> None:
    assert access_table(["GET /new"]).splitlines()[-1] == "| `GET /new` | 401 | 403 | 403 | all |"


def test_security_page_shows_current_permission_table() -> None:
    """Compare docs/security.md with the output of `.venv/bin/python scripts/access_table.py`."""
    page = PAGE.read_text()
    assert page == with_table(page)
    assert all(f"| `{name}` |" in page for name in PERMISSIONS)


def test_every_write_route_names_its_limit_and_no_read_does() -> None:
    """Fail for a new write that no quota counts; a sign-in is counted by its route, once its caller is known."""
    there = endpoints(create_app(Settings()).routes)
    writes = {name for name in there if not name.startswith(("GET ", "HEAD "))}
    assert len(writes) > 15
    assert {name for name in there if PERMISSIONS.get(name, ADMINS_ONLY).counted is not None} == writes - {
        "POST /console/session"
    }


def test_outage_policies_are_of_known_endpoints() -> None:
    assert set(_POLICIES) <= set(PERMISSIONS)


def test_every_call_of_a_registered_runner_names_its_outage_policy() -> None:
    """Fail for a new call that would get 503 after 5 s: a runner sends reports once. It repeats its registration."""
    calls = {name for name in PERMISSIONS if " /runner/" in name} - {"POST /runner/register"}
    reports = {name for name, permission in PERMISSIONS.items() if permission.counted is Counted.REPORTS}
    assert calls == {"GET /runner/runs"} | reports
    assert _POLICIES["GET /runner/runs"] is OutagePolicy.POLL
    assert {_POLICIES.get(name) for name in reports} == {OutagePolicy.HELD}
