"""A server that is full, with one of its mechanisms broken on purpose: the scenario must notice."""

import pytest

from runtime.settings import Settings
from server.admission import Admission
from tests.support.surplus_scenarios import narrow, the_surplus_waits


def test_the_surplus_waits(settings: Settings) -> None:
    """As it is."""
    with narrow(settings) as url:
        the_surplus_waits(url)


def test_a_server_that_takes_everybody_is_noticed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it has no descriptor left, and resets."""
    monkeypatch.setattr(Admission, "count", lambda _: None)
    with narrow(settings) as url, pytest.raises(AssertionError, match=r"more were accepted|did not pause"):
        the_surplus_waits(url)


def test_a_server_that_stays_closed_is_noticed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits would do so until its own patience ends."""

    async def never(*_: object) -> None:
        return

    monkeypatch.setattr(Admission, "accept_again", never)
    with narrow(settings) as url, pytest.raises(AssertionError, match="40 answers did not come"):
        the_surplus_waits(url)
