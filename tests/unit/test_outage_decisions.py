"""Check which silences are attributed to an outage of the coordinator, given the clocks."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models.expiry.outages import Clocks, Readings, detect_outages

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def look(**values: Any) -> Clocks:
    return detect_outages(Readings(now=NOW, **values))


def test_first_pass_on_new_database_sees_no_outage() -> None:
    assert look() == Clocks(NOW)


@pytest.mark.parametrize(("seconds", "gaps"), [(14, 0), (15, 0), (16, 1), (86_400, 1)])
def test_expiry_paused_for_over_15_seconds_is_an_outage(seconds: float, gaps: int) -> None:
    """The outage ends now; silence counts from now."""
    clocks = look(expiry_at=ago(seconds))
    assert len(clocks.ended_outages) == gaps
    assert (clocks.restarted_at == NOW) == bool(gaps)
    assert not clocks.suspended


def test_no_silence_counts_while_no_web_process_is_alive() -> None:
    assert look(web_at=ago(16)).suspended
    assert look(web_at=ago(86_400)).suspended
    assert not look(web_at=ago(14)).suspended
    assert look(web_at=ago(16)).ended_outages == []


def test_outage_of_all_runners_ends_with_first_request() -> None:
    """Give the others their whole window again. The outage began when the last runner became overdue."""
    clocks = look(overdue_before=ago(60), heard=ago(1))
    assert clocks.ended_outages == [("runners", ago(60), ago(1))]
    assert clocks.restarted_at == ago(1)
    assert not clocks.unheard


def test_runner_heard_within_its_interval_ends_no_outage() -> None:
    """No runner was overdue for more than 15 s, however long ago any was heard before."""
    for overdue_before in (None, ago(15), ago(-50)):
        clocks = look(overdue_before=overdue_before, heard=ago(0))
        assert (clocks.ended_outages, clocks.restarted_at) == ([], None)


@pytest.mark.parametrize("online", [0, 1])
def test_silence_of_a_single_runner_is_no_outage(online: int) -> None:
    assert not look(overdue_at=ago(60), online=online).unheard


def test_all_of_several_runners_overdue_is_an_outage() -> None:
    """Restart silence from now while it lasts; runners silent for twice their window are lost all the same."""
    assert not look(overdue_at=ago(15), online=2).unheard
    for seconds in (16, 361, 86_400):
        clocks = look(overdue_at=ago(seconds), online=2, restarted_at=ago(5))
        assert (clocks.unheard, clocks.suspended, clocks.restarted_at) == (True, False, NOW)


def test_one_runner_not_overdue_rules_out_an_outage() -> None:
    """``overdue_at`` is the latest of all: a runner with a long interval was not due yet."""
    assert not look(overdue_at=ago(-10), online=50).unheard
