"""Which silences are our own doing: decided on what the clocks show."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models.expiry.outages import Clocks, Readings, detect_outages

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def look(**values: Any) -> Clocks:
    return detect_outages(Readings(now=NOW, **values))


def test_clocks_that_never_ran_show_no_gap() -> None:
    """The first pass on a new database."""
    assert look() == Clocks(NOW)


@pytest.mark.parametrize(("seconds", "gaps"), [(14, 0), (15, 0), (16, 1), (86_400, 1)])
def test_expiry_that_was_away_for_more_than_fifteen_seconds_is_a_gap(seconds: float, gaps: int) -> None:
    """It ends now, and silence counts from now."""
    clocks = look(expiry_at=ago(seconds))
    assert len(clocks.ended_outages) == gaps
    assert (clocks.restarted_at == NOW) == bool(gaps)
    assert not clocks.suspended


def test_while_no_web_process_gives_a_sign_nothing_is_judged() -> None:
    """However long that lasts: nobody can be heard."""
    assert look(web_at=ago(16)).suspended
    assert look(web_at=ago(86_400)).suspended
    assert not look(web_at=ago(14)).suspended
    assert look(web_at=ago(16)).ended_outages == []


def test_gap_of_all_runners_ends_with_the_first_one_heard() -> None:
    """The others get their whole window again. It began when the last of them was overdue."""
    clocks = look(overdue_before=ago(60), heard=ago(1))
    assert clocks.ended_outages == [("runners", ago(60), ago(1))]
    assert clocks.restarted_at == ago(1)
    assert not clocks.unheard


def test_runner_heard_within_its_interval_ends_no_gap() -> None:
    """However long ago anybody was heard before: nobody was overdue for more than fifteen seconds."""
    for overdue_before in (None, ago(15), ago(-50)):
        clocks = look(overdue_before=overdue_before, heard=ago(0))
        assert (clocks.ended_outages, clocks.restarted_at) == ([], None)


@pytest.mark.parametrize("online", [0, 1])
def test_one_runners_silence_is_its_own(online: int) -> None:
    """Only several at once point to us."""
    assert not look(overdue_at=ago(60), online=online).unheard


def test_all_of_several_runners_overdue_may_be_our_fault() -> None:
    """Silence counts from now as long as that lasts; what has waited twice its window is judged all the same."""
    assert not look(overdue_at=ago(15), online=2).unheard
    for seconds in (16, 361, 86_400):
        clocks = look(overdue_at=ago(seconds), online=2, restarted_at=ago(5))
        assert (clocks.unheard, clocks.suspended, clocks.restarted_at) == (True, False, NOW)


def test_one_runner_that_is_not_overdue_is_enough() -> None:
    """``overdue_at`` is the latest of all: one that is told a long interval and keeps it was not due to be heard."""
    assert not look(overdue_at=ago(-10), online=50).unheard
