"""Counts and durations of runs: what a process wrote, after the commit only, by outcome and cause."""

from collections.abc import Callable, Iterator

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Connection

from models.core import facts as noted_facts
from models.expiry.expire import expire
from models.runs.release import ReleaseRun, release_runs
from runtime import facts as counted_facts
from runtime.postgres import autocommit, transaction
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.clocks import due, fall_silent
from tests.support.db_verbs import DbVerbs
from tests.support.matching import no_match_due
from tests.support.reports import claimed, running
from tests.support.web import WebClient, WebInThread, served


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"coordinator_{name}", labels) or 0.0


class Counted:
    """Growth of series since it was made."""

    def __init__(self) -> None:
        self._before = self._now()

    @staticmethod
    def _now() -> dict[str, float]:
        families = [family for family in REGISTRY.collect() if family.type in {"counter", "histogram"}]
        return {
            f"{sample.name}{sorted(sample.labels.items())}": sample.value
            for family in families
            for sample in family.samples
        }

    def of(self, name: str, **labels: str) -> float:
        key = f"coordinator_{name}{sorted(labels.items())}"
        return self._now().get(key, 0.0) - self._before.get(key, 0.0)


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings) as served_web:
        yield served_web


def test_life_of_a_run_is_counted_once_by_each_of_its_steps(web: WebInThread) -> None:
    """Submit, claim, start and end runs through the web; refuse a report; leave out held requests of the latency."""
    client: WebClient = web.client
    counted = Counted()
    runner = client.register()
    run = client.finished(runner)
    client.resume(run["session_id"])
    resumed = client.claim(runner)
    assert client.report(resumed, runner, "failed", error="x").status_code == 200
    assert client.report(resumed, runner, "completed").status_code == 409
    assert client.report(resumed | {"claim_token": "of another"}, runner, "completed").status_code == 409
    pending = client.submit(additional_demands={"tags": ["nowhere"]})
    assert client.post(f"/runs/{pending['run_id']}/stop").status_code == 200
    held = web.client.meanwhile(client.get, f"/runs/{client.submit()['run_id']}", wait=1)
    assert held.result(30).status_code == 200

    assert counted.of("runs_submitted_total", type="start_session") == 3
    assert counted.of("runs_submitted_total", type="resume_session") == 1
    assert counted.of("runs_ended_total", outcome="completed", cause="reported") == 1
    assert counted.of("runs_ended_total", outcome="failed", cause="reported") == 1
    assert counted.of("runs_ended_total", outcome="stopped", cause="stopped") == 1
    assert counted.of("run_duration_seconds_count", outcome="completed") == 1
    assert counted.of("start_seconds_count") == 2
    claims = ("poll", "parked", "woken", "recheck")
    assert sum(counted.of("run_wait_seconds_count", source=source) for source in claims) == 2
    assert 0 < sum(counted.of("run_wait_seconds_sum", source=source) for source in claims) < 60
    assert counted.of("reports_refused_total", reason="invalid_transition") == 1
    assert counted.of("reports_refused_total", reason="stale_claim") == 1
    assert counted.of("http_request_seconds_count", route="/runs/{run_id}") == 0
    assert counted.of("http_request_seconds_count", route="/runner/runs") == 0
    assert counted.of("http_request_seconds_count", route="/runs") == 4


def test_process_gauges_are_read_when_a_scraper_asks(web: WebInThread) -> None:
    up = 'coordinator_dependency_up{dependency="redis"} 1.0'
    eventually(lambda: up in web.client.get("/metrics").text, what="Redis up")
    text = web.client.get("/metrics").text
    assert 'coordinator_dependency_up{dependency="postgres"} 1.0' in text
    for pool in ("writes", "reads", "feed"):
        assert f'coordinator_db_pool_connections{{pool="{pool}",state="in_use"}}' in text
    assert 'coordinator_batch_queue_items{verb="submit_runs"} 0.0' in text
    assert "coordinator_feed_reader_lag_events 0.0" in text
    assert 'coordinator_build_info{schema="' in text
    eventually(lambda: value("event_loop_lag_seconds_count") > 0, what="a measured event loop")


def lost(db: DbVerbs) -> Callable[[Connection], object]:
    runner = db.runner()
    running(db, runner)
    fall_silent(db, runner, 3600)
    return expire


def unmatched(db: DbVerbs) -> Callable[[Connection], object]:
    no_match_due(db, db.start().run_id)
    return expire


def never_started(db: DbVerbs) -> Callable[[Connection], object]:
    run = claimed(db)
    due(db, run.run_id, "claim_deadline_at", ago=600)
    return expire


def given_back(db: DbVerbs) -> Callable[[Connection], object]:
    run = claimed(db)
    item = ReleaseRun(run.run_id, run.runner_id or "", run.claim_token or "")
    return lambda conn: release_runs(conn, [item])


@pytest.mark.parametrize(
    ("prepare", "name", "labels"),
    [
        (lost, "runs_ended_total", {"outcome": "failed", "cause": "lost"}),
        (unmatched, "runs_ended_total", {"outcome": "failed", "cause": "no_match"}),
        (never_started, "runs_requeued_total", {"cause": "start"}),
        (given_back, "runs_requeued_total", {"cause": "released"}),
    ],
)
def test_ends_and_returns_by_the_coordinator_are_counted_with_their_cause(
    db: DbVerbs, prepare: Callable[[DbVerbs], Callable[[Connection], object]], name: str, labels: dict[str, str]
) -> None:
    """Count and log them with their ids after the commit; a transaction that fails counts nothing."""
    work = prepare(db)
    counted = Counted()
    with pytest.raises(ZeroDivisionError), transaction(db.engine) as connection:
        work(connection)
        raise ZeroDivisionError
    with autocommit(db.engine):
        pass
    assert counted.of(name, **labels) == 0
    with transaction(db.engine) as connection:
        work(connection)
    assert counted.of(name, **labels) == 1


def test_both_sides_of_facts_name_the_same_place() -> None:
    assert noted_facts.NOTED == counted_facts.NOTED
    names = {noted_facts.SUBMITTED, noted_facts.DELIVERED, noted_facts.STARTED, noted_facts.ENDED, noted_facts.REQUEUED}
    assert names == counted_facts.NAMES
