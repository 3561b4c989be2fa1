"""The table of who may call what is about the endpoints there are, and says what the door does."""

import pytest

from app.auth.permissions import ADMINS_ONLY, PERMISSIONS, Permission, access_table, endpoints
from app.endpoint import Endpoint
from app.main import create_app
from models.core.callers import Role
from runtime.settings import Settings
from scripts.access_table import PAGE, with_table


def test_every_endpoint_has_its_row_and_every_row_its_endpoint() -> None:
    """A new endpoint is for admins only until somebody says for whom it is."""
    there = endpoints(create_app(Settings()).routes)
    assert len(there) == len(set(there))
    assert set(there) == set(PERMISSIONS)


def test_every_route_has_the_door() -> None:
    """One that is added past app/endpoint.py would be open; the files of the reference are for everybody."""
    doorless = [route for route in create_app(Settings()).routes if not isinstance(route, Endpoint)]
    assert [getattr(route, "path", "") for route in doorless] == ["/static/docs"]


def test_only_signs_of_health_are_public() -> None:
    """Whatever else is made public must be thought over."""
    assert {name for name, permission in PERMISSIONS.items() if permission.public} == {
        "GET /health",
        "GET /health/live",
        "GET /health/ready",
    }


@pytest.mark.parametrize("role", Role)
def test_a_role_without_words_is_not_let_in(role: Role) -> None:
    """The words of the table and the answer of the door are one thing."""
    assert Permission(admin=None).allows(role) is False
    assert Permission("a", "b", "c").allows(role) is True


def test_the_table_shows_an_endpoint_nobody_spoke_about_as_the_admins() -> None:
    """What is forgotten is closed."""
    assert access_table(["GET /new"]).splitlines()[-1] == "| `GET /new` | 401 | 403 | 403 | all |"


def test_the_page_on_security_shows_the_table_as_it_is() -> None:
    """`.venv/bin/python scripts/access_table.py` writes it."""
    page = PAGE.read_text()
    assert page == with_table(page)
    assert all(f"| `{name}` |" in page for name in PERMISSIONS)


def test_every_write_route_names_its_limit_and_no_read_does() -> None:
    """A new write cannot be uncounted: what nothing is said about has no limit, and fails here."""
    there = endpoints(create_app(Settings()).routes)
    writes = {name for name in there if not name.startswith(("GET ", "HEAD "))}
    assert len(writes) > 15
    assert {name for name in there if PERMISSIONS.get(name, ADMINS_ONLY).counted is not None} == writes
