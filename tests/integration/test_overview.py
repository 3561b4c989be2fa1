"""Counts, queues and curves, and the rollup that they come from."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models.core.callers import ADMIN, Caller, Role
from models.overview.counts import RunCounts, count_runs
from models.overview.measures import BOUNDS, percentile
from models.overview.queues import Queues, read_queues
from models.overview.rollup import Grouping, drop_old_stats, roll_up
from models.overview.series import By, Metric, read_series
from runtime.settings import Settings
from tests.support.answer_models import check_fields
from tests.support.callers import client_with, make_key, web_with_auth
from tests.support.clocks import fall_silent, pass_time, tick
from tests.support.db_verbs import DbVerbs
from tests.support.overview import counted, history, ledger, rolled_up
from tests.support.reports import running

ann, bob = Caller(Role.USER, "ann"), Caller(Role.USER, "bob")


@pytest.mark.parametrize("most", [1, 7, 5_000])
def test_rollup_counts_what_the_runs_say(db: DbVerbs, most: int) -> None:
    """Count requeued runs once, in batches of any size; a repeat counts nothing."""
    history(db)
    rolled_up(db, most)
    assert counted(db) == counted(db, 3600) == ledger(db)
    histograms = db.rows(
        "SELECT measure, sum(number) AS number FROM run_totals WHERE step = 60 AND grouped_by = 'all' GROUP BY 1"
    )
    assert {row.measure: int(row.number) for row in histograms}["claimed"] == 8
    db.rows("UPDATE run_totals_head SET position = position")
    assert db.do(roll_up) == 0
    assert counted(db) == ledger(db)


def test_counts_are_exact_and_own(db: DbVerbs) -> None:
    """Tell owners apart, filter by agent, and say when the history is not wholly counted."""
    history(db)

    def counts(caller: Caller = ADMIN, **which: Any) -> RunCounts:
        return db.do(count_runs, caller, **{"since": None} | which)

    assert counts().exact is False
    rolled_up(db)
    found = counts()
    assert (found.exact, found.ended) == (True, {"completed": 2, "failed": 2, "stopped": 2})
    # Two runs of lost runners, and the two of the last session; one of these waits.
    assert (found.ready, found.delayed, found.waiting) == (3, 1, 1)
    assert found.in_hand == {"claimed": 0, "running": 0, "stopping": 0}
    own = counts(bob)
    assert (own.ready, own.delayed, own.waiting) == (1, 0, 0)
    assert own.ended == {status: ledger(db).get(("bob", status), 0) for status in found.ended}
    assert counts(bob, owner="ann").ended == own.ended
    assert counts(owner="ann").ready == 2
    assert counts(agent="writer").ended == {"completed": 2, "failed": 0, "stopped": 0}
    assert counts(since=datetime.now(UTC) - timedelta(days=10)).ended == found.ended
    pass_time(db, "run_totals", "period", 7 * 3600)
    assert sum(counts(since=datetime.now(UTC) - timedelta(hours=6)).ended.values()) == 0


def test_queue_shows_matching_runners_and_rate_to_its_owner(db: DbVerbs) -> None:
    """Count free, full, unlimited and silent runners; show no other owner's queue."""
    busy = db.runner(capacity=1)
    running(db, busy, caller=ann)
    db.runner(capacity=3)
    db.runner()
    fall_silent(db, db.runner(), 3600)
    tick(db)
    db.runner(tags=["gpu"], require_matching_tags=True)
    db.start(caller=ann)
    db.start(caller=bob)
    rolled_up(db)
    found: Queues = db.do(read_queues, ADMIN)
    (queue,) = found.queues
    assert (queue.ready, queue.waiting, queue.in_hand, found.truncated) == (2, 0, 1, False)
    runners = queue.runners
    assert (runners.online, runners.full, runners.free_slots, runners.unlimited, runners.stale) == (3, 1, 3, 1, 1)
    assert queue.oldest_ready_at is not None
    assert (queue.claims_per_minute, queue.eta_seconds) == (0.2, 600)
    (own,) = db.do(read_queues, bob).queues
    assert (own.ready, own.in_hand, own.claims_per_minute, own.eta_seconds) == (1, 0, 0, None)
    assert db.do(read_queues, Caller(Role.USER, "eve")).queues == []


def test_series_by_status_profile_and_agent(db: DbVerbs) -> None:
    """Sum periods; draw histograms as percentiles; keep owners apart."""
    history(db)
    rolled_up(db)
    now = datetime.now(UTC)

    def curves(metric: Metric, by: By | None = None, caller: Caller = ADMIN, step: int = 300) -> dict[str, float]:
        series = db.do(
            read_series, caller, metric, by, step=step, since=now - timedelta(hours=1), until=now + timedelta(hours=1)
        )
        return {curve.label: sum(point[-1] or 0 for point in curve.points) for curve in series.curves}

    assert curves(Metric.ENDED, By.STATUS) == {"completed": 2, "failed": 2, "stopped": 2}
    assert curves(Metric.ENDED, step=3600) == {"": 6}
    assert curves(Metric.SUBMITTED, By.AGENT) == {"writer": 2, "": 9}
    assert curves(Metric.SUBMITTED, By.AGENT, bob) == {"writer": 1, "": 3}
    # Claims of runs that were given back before they were counted have no wait.
    assert curves(Metric.WAIT) == {"": 4}
    assert curves(Metric.DURATION) == {"": 4}
    assert len(curves(Metric.SUBMITTED, By.PROFILE)) == 1


def test_counts_of_every_grouping_agree(db: DbVerbs) -> None:
    """Each read has rows of its own, which must add up to the same."""
    history(db)
    rolled_up(db)
    sums: dict[str, dict[tuple[int, str], int]] = {}
    for row in db.rows("SELECT grouped_by, step, measure, sum(number) AS number FROM run_totals GROUP BY 1, 2, 3"):
        sums.setdefault(row.grouped_by, {})[row.step, row.measure] = int(row.number)
    assert set(sums) == set(Grouping)
    assert len({tuple(sorted(found.items())) for found in sums.values()}) == 1


def test_small_curves_are_added_up(db: DbVerbs) -> None:
    for number in range(25):
        for _ in range(2 if number < 19 else 1):
            db.start(agent_name=f"agent {number}")
    rolled_up(db)
    now = datetime.now(UTC)
    window = {"since": now - timedelta(hours=1), "until": now + timedelta(hours=1)}
    curves = db.do(read_series, ADMIN, Metric.SUBMITTED, By.AGENT, step=60, **window).curves
    sums = {curve.label: sum(point[-1] or 0 for point in curve.points) for curve in curves}
    assert (len(sums), sums["other"], sum(sums.values())) == (21, 5, 44)


def test_long_names_of_agents_are_counted_by_a_part_and_their_digest(db: DbVerbs) -> None:
    """The name stands in an index, whose rows are bounded: one such run must not end all counting."""
    names = ["".join(chr(0x4E00 + (place * 7919 + seed) % 20_000) for place in range(1024)) for seed in (1, 2)]
    for name in names:
        db.start(agent_name=name)
    rolled_up(db)
    db.rows("UPDATE run_totals SET measure = 'failed' WHERE measure = 'submitted'")
    assert [db.do(count_runs, ADMIN, since=None, agent=name).ended["failed"] for name in names] == [1, 1]


def test_old_counts_are_dropped(db: DbVerbs) -> None:
    history(db)
    rolled_up(db)
    pass_time(db, "run_totals", "period", 50 * 3600)
    assert db.do(drop_old_stats) == db.count("run_totals", "step = 3600") > 0
    assert db.count("run_totals", "step = 60") == 0


def test_percentile_of_histogram() -> None:
    assert percentile({}, 0.5) is None
    assert percentile({1: 10}, 0.5) == BOUNDS[0] / 2
    assert percentile({len(BOUNDS) + 1: 1}, 0.99) == BOUNDS[-1]
    assert percentile({1: 50, 5: 50}, 0.75) == pytest.approx((BOUNDS[3] + BOUNDS[4]) / 2)


def test_overview_over_http(settings: Settings, db: DbVerbs) -> None:
    """Answer as described; refuse windows that cannot be answered, and the owner of another."""
    history(db)
    rolled_up(db)
    user, runner = make_key(db, Role.USER, "bob"), make_key(db, Role.RUNNER, "bob")
    with (
        web_with_auth(settings) as web,
        client_with(web.client.url, user) as client,
        client_with(web.client.url, runner) as machine,
    ):
        for path in (
            "/runs/counts",
            "/runs/counts?agent_name=writer&since=2026-01-01T00:00:00Z",
            "/queues",
            "/stats/series?metric=ended&by=status",
            "/stats/series?metric=wait&by=profile&step=86400",
        ):
            answer = client.http.get(path)
            assert answer.status_code == 200, answer.text
            check_fields(f"GET {path.partition('?')[0]}", 200, answer.json())
            assert machine.http.get(path).status_code == 403
        for path in (
            "/runs/counts?owner=ann",
            "/runs/counts?label=a",
            "/runs/counts?since=2099-01-01T00:00:00Z",
            "/runs/counts?since=0001-01-01T00:00:00Z",
            "/stats/series?metric=ended&step=3600&until=0001-01-02T00:00:00Z",
            "/queues?limit=1",
            "/stats/series",
            "/stats/series?metric=ended&by=status&by=agent",
            "/stats/series?metric=wait&by=status",
            "/stats/series?metric=ended&step=61",
            "/stats/series?metric=ended&since=2026-01-01T00:00:00Z",
            "/stats/series?metric=ended&step=3600&since=1026-01-01T00:00:00Z",
            "/stats/series?metric=ended&since=2999-01-01T00:00:00Z",
        ):
            assert client.http.get(path).status_code == 422, path
