"""Break one mechanism of silence and outages on purpose: the scenario that guards it must notice."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection

from models.expiry import outages, steps
from models.expiry.outages import Clocks
from models.runners import heartbeat
from tests.integration import test_slow_heartbeats, test_unreceived_claims
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import Scenario, break_statement, notices


@pytest.mark.parametrize(
    "scenario",
    [
        test_slow_heartbeats.test_dead_runner_among_slow_heartbeats_is_lost,
        test_slow_heartbeats.test_unstarted_claim_among_slow_heartbeats_is_released,
    ],
    ids=lambda scenario: scenario.__name__,
)
def test_outage_that_ignores_told_intervals_is_noticed(
    db: DbVerbs, monkeypatch: pytest.MonkeyPatch, scenario: Scenario
) -> None:
    """With any 15 s of silence as an outage, slow heartbeats make one after another."""
    break_statement(monkeypatch, outages, "_READ", {" + make_interval(secs => told_interval)": ""})
    notices(scenario, db, "is put off")


def test_windows_that_only_restart_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each outage restarts all silence, and twice the window ends nothing."""

    def restarted(_: Connection, clocks: Clocks, windows: Sequence[float]) -> list[datetime]:
        starts = [clocks.now - timedelta(seconds=seconds) for seconds in windows]
        ended = clocks.restarted_at
        return [clocks.now - timedelta(days=1) if ended and ended > start else start for start in starts]

    monkeypatch.setattr(steps, "begun_before", restarted)
    notices(test_slow_heartbeats.test_outages_of_all_runners_delay_a_loss_once, db, "for ever")


def test_outages_that_restart_nothing_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count silence as it is, whatever caused it."""

    def plain(_: Connection, clocks: Clocks, windows: Sequence[float]) -> list[datetime]:
        return [clocks.now - timedelta(seconds=seconds) for seconds in windows]

    monkeypatch.setattr(steps, "begun_before", plain)
    notices(test_slow_heartbeats.test_outages_of_all_runners_delay_a_loss_once, db, "is held against it")


def test_outages_that_count_as_time_served_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """End runs after twice the window by the wall clock."""
    wall_clock = "clock_timestamp() - make_interval(secs => 2 * w.seconds)"
    break_statement(monkeypatch, outages, "_SERVED", {"served_ago(2 * w.seconds)": wall_clock})
    notices(test_slow_heartbeats.test_outages_one_after_another_are_not_counted, db, "is held against it")


@pytest.mark.parametrize(
    ("part", "weaker", "scenario", "says"),
    [
        (
            "AND w.poll_id > r.claim_poll_id",
            "OR true",
            test_unreceived_claims.test_answer_on_its_way_is_waited_for,
            None,
        ),
        (
            "WHEN held.is_named THEN 0 ELSE",
            "WHEN held.is_named THEN r.unheld_beats ELSE",
            test_unreceived_claims.test_claim_named_by_the_second_heartbeat_is_kept,
            "a single heartbeat took it",
        ),
        (
            "WHEN r.unheld_beats + 1 >= 2 THEN least",
            "WHEN false THEN least",
            test_unreceived_claims.test_claim_that_never_arrived_is_released,
            "start timeout",
        ),
    ],
    ids=["later poll", "in a row", "release"],
)
def test_weaker_evidence_that_claim_never_arrived_is_noticed(
    db: DbVerbs, monkeypatch: pytest.MonkeyPatch, part: str, weaker: str, scenario: Scenario, says: str | None
) -> None:
    """Release without a later poll, without two heartbeats in a row, or not at all."""
    break_statement(monkeypatch, heartbeat, "_HOLDING", {part: weaker})
    notices(scenario, db, says)
