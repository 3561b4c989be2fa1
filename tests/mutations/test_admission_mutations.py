"""Break admission at a full server on purpose: its scenario must notice."""

import pytest

from runtime.settings import Settings
from server.admission import Admission
from tests.processes import test_connection_limit


def test_surplus_clients_wait(settings: Settings) -> None:
    """Run the scenario unbroken."""
    with test_connection_limit.server_with_few_connections(settings) as url:
        test_connection_limit.surplus_clients_wait(url)


def test_unbounded_accepting_is_noticed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept until no descriptor is left; then connections are reset."""
    monkeypatch.setattr(Admission, "count", lambda _: None)
    with (
        test_connection_limit.server_with_few_connections(settings) as url,
        pytest.raises(AssertionError, match=r"more were accepted|did not pause"),
    ):
        test_connection_limit.surplus_clients_wait(url)


def test_accepting_that_never_resumes_is_noticed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients would wait until their own timeouts."""

    async def never(*_: object) -> None:
        return

    monkeypatch.setattr(Admission, "accept_again", never)
    with (
        test_connection_limit.server_with_few_connections(settings) as url,
        pytest.raises(AssertionError, match="40 answers did not come"),
    ):
        test_connection_limit.surplus_clients_wait(url)
