"""Metrics of the whole installation, and the list of targets, of a served process and a real database."""

import re
from collections.abc import Iterator
from math import inf

import pytest

from app.main import create_app
from models.monitoring.cluster import MOST_PROFILES, profile_name, read_cluster
from models.monitoring.targets import Target, drop_target, list_targets, record_target
from runtime.addresses import advertised
from runtime.settings import Settings
from tests.support.clocks import pass_time
from tests.support.db_verbs import DbVerbs
from tests.support.postgres_proxy import PostgresProxy, postgres_proxy
from tests.support.web import WebClient, served


@pytest.fixture
def proxy(settings: Settings) -> Iterator[PostgresProxy]:
    with postgres_proxy(settings.database_url) as opened:
        yield opened


def sample(text: str, name: str) -> float:
    found = re.search(rf"^coordinator_{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found, (name, text)
    return float(found[1])


def test_snapshot_shows_queues_runners_and_the_feed_and_outlives_postgres(
    settings: Settings, proxy: PostgresProxy
) -> None:
    """Read it through a connection that is cut then: the last values stay, with their age."""
    behind = settings.model_copy(update={"database_url": proxy.url, "recheck_seconds": 4.0})
    with served(behind) as web:
        client: WebClient = web.client
        runner = client.register(capacity=3)
        held = client.started(runner)
        client.submit(not_before=3600)
        client.resume(held["session_id"])
        gpu = {"additional_demands": {"tags": ["gpu"]}}
        client.submit(**gpu)
        client.submit(**gpu)
        text = client.get("/metrics/cluster").text
        assert sample(text, 'runs_ready{profile="#gpu"}') == 2
        assert sample(text, 'runs_unserved{profile="#gpu"}') == 2
        assert 0 <= sample(text, 'oldest_ready_age_seconds{profile="#gpu"}') < 60
        assert sample(text, 'runs_waiting{reason="delayed"}') == 1
        assert sample(text, 'runs_waiting{reason="session"}') == 1
        assert sample(text, 'runs_in_hand{state="running"}') == 1
        assert sample(text, 'runners{state="online"}') == 1
        assert sample(text, 'runner_slots{profile="e"}') == 3
        assert sample(text, 'runner_slots_used{profile="e"}') == 1
        assert sample(text, "feed_head_position") > 0
        assert sample(text, 'table_bytes{table="runs"}') > 0
        assert sample(text, 'outages_last_day{kind="web"}') == 0
        assert sample(text, "cluster_snapshot_age_seconds") < 60
        client.submit(**gpu)
        proxy.leave()
        web.app.state.web.cluster_metrics._tried_at = -inf
        text = client.get("/metrics/cluster").text
        assert sample(text, 'runs_ready{profile="#gpu"}') == 2
        assert sample(text, "cluster_snapshot_age_seconds") > 0
        assert client.get("/metrics").status_code == 200
        proxy.come_back()


def test_targets_lists_each_process_once_and_forgets_those_that_ended(settings: Settings, db: DbVerbs) -> None:
    app = create_app(settings)
    assert app.state.address == ""
    worker = Target("10.0.0.7:9100", "worker", "worker_1")
    with served(settings) as web:
        db.do(record_target, worker)
        db.do(record_target, Target("10.0.0.8:8765", "web", "web_1"))
        db.do(record_target, Target("10.0.0.8:8765", "web", "web_2"))
        assert web.client.get("/metrics/targets").json() == [
            {"targets": ["10.0.0.8:8765"], "labels": {"job": "coordinator-web"}},
            {"targets": ["10.0.0.7:9100"], "labels": {"job": "coordinator-worker"}},
            {
                "targets": ["10.0.0.8:8765"],
                "labels": {"job": "coordinator-cluster", "__metrics_path__": "/metrics/cluster"},
            },
        ]
    db.do(drop_target, Target("10.0.0.8:8765", "web", "web_1"))
    assert db.do(list_targets) == {"web": ["10.0.0.8:8765"], "worker": ["10.0.0.7:9100"]}
    db.do(drop_target, worker)
    pass_time(db, "metrics_targets", "seen_at", 301)
    assert db.do(list_targets) == {}


def test_labels_are_bounded_names_of_demands(db: DbVerbs) -> None:
    """Merge queues beyond the fifty longest; keep names short."""
    for number in range(MOST_PROFILES + 5):
        db.rows(
            "INSERT INTO demand_profiles (hash, tags) VALUES (:h, ARRAY[:t])", h=f"hash {number}", t=f"tag-{number}"
        )
    db.rows(
        "INSERT INTO sessions (session_id, incarnation, status, next_run) "
        "SELECT 's_' || profile_id, 'i', 'pending', 2 FROM demand_profiles"
    )
    db.rows(
        "INSERT INTO runs (run_id, session_id, session_seq, type, parameters, execution_mode, demands, profile_id, "
        "status, ready, no_match_timeout_seconds, match_deadline_at) SELECT 'run_' || profile_id, 's_' || profile_id, "
        "1, 'start_session', '{}', 'sync', '{}', profile_id, 'pending', true, 300, now() FROM demand_profiles"
    )
    queues = {queue.profile: queue.ready for queue in db.do(read_cluster, ["expire"]).queues}
    assert len(queues) == MOST_PROFILES + 1
    assert queues["other"] == 5
    assert profile_name(None, None, None, ()) == "any"
    assert profile_name("h", "/d", "coding", ("b", "a")) == "coding host=h dir=/d #a #b"
    assert len(profile_name("h" * 500, None, None, ())) == 80


def test_advertised_address_is_one_that_others_can_reach(settings: Settings) -> None:
    assert advertised(settings, "127.0.0.1", 80) == "127.0.0.1:80"
    assert advertised(settings, "::1", 80) == "[::1]:80"
    assert not advertised(settings, "0.0.0.0", 80).startswith("0.")
    named = settings.model_copy(update={"advertised_host": "10.1.2.3"})
    assert advertised(named, "0.0.0.0", 80) == "10.1.2.3:80"
