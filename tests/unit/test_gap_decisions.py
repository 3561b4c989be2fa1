"""Which silences are our own doing: decided on what the clocks show."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models.gaps import Clocks, Seen, judge

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def look(**values: Any) -> Clocks:
    return judge(Seen(now=NOW, **values))


def test_clocks_that_never_ran_show_no_gap() -> None:
    """The first pass on a new database."""
    assert look() == Clocks(NOW)


@pytest.mark.parametrize(("seconds", "gaps"), [(14, 0), (15, 0), (16, 1), (86_400, 1)])
def test_expiry_that_was_away_for_more_than_fifteen_seconds_is_a_gap(seconds: float, gaps: int) -> None:
    """It ends now, and silence counts from now."""
    clocks = look(expiry_at=ago(seconds))
    assert len(clocks.gaps) == gaps
    assert (clocks.restarted_at == NOW) == bool(gaps)
    assert not clocks.blind


def test_while_no_web_process_gives_a_sign_nothing_is_judged() -> None:
    """However long that lasts: nobody can be heard."""
    assert look(web_at=ago(16)).blind
    assert look(web_at=ago(86_400)).blind
    assert not look(web_at=ago(14)).blind
    assert look(web_at=ago(16)).gaps == []


def test_a_gap_in_which_nobody_of_several_was_heard_ends_with_the_first_sign() -> None:
    """The others get their whole window again."""
    clocks = look(heard_before=ago(60), heard=ago(1), company_before=2)
    assert clocks.gaps == [("runners", ago(60), ago(1))]
    assert clocks.restarted_at == ago(1)


@pytest.mark.parametrize("company", [0, 1])
def test_one_runners_silence_is_its_own(company: int) -> None:
    """Only several at once point to us."""
    assert look(heard_before=ago(60), heard=ago(1), company_before=company).gaps == []
    assert not look(heard=ago(60), company=company, lost_window=180).blind


def test_nobody_heard_though_several_were_online_puts_judgement_off_for_one_more_window() -> None:
    """It may be us; but all of them may also have died together."""
    assert not look(heard=ago(15), company=2, lost_window=180).blind
    assert look(heard=ago(16), company=2, lost_window=180).blind
    assert look(heard=ago(360), company=2, lost_window=180).blind
    assert not look(heard=ago(361), company=2, lost_window=180).blind


def test_after_another_gap_the_quiet_counts_from_its_end() -> None:
    """Nobody could be heard before."""
    assert look(heard=ago(400), restarted_at=ago(10), company=2, lost_window=60).blind is False
    assert look(heard=ago(400), restarted_at=ago(100), company=2, lost_window=60).blind


def test_windows_count_from_the_end_of_the_last_gap() -> None:
    """Or from their own beginning when that is later."""
    clocks = Clocks(NOW, restarted_at=ago(10))
    assert clocks.counted_from(ago(60)) == ago(10)
    assert clocks.counted_from(ago(5)) == ago(5)
    assert Clocks(NOW).counted_from(ago(60)) == ago(60)
