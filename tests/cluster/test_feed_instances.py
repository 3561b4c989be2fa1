"""Write and read the feed at two web processes at once: all see one history (promise 3)."""

from typing import Any

import pytest
from sqlalchemy import Engine

from testkit.cluster import Cluster
from tests.support.feed_watchers import acknowledged_events_are_in_history, watching
from tests.support.feed_writers import writing

# So small a buffer that a client which was away for a moment has to read from Postgres, in many pages.
NARROW = {"feed_window_events": 30, "catch_up_page_events": 7}


@pytest.mark.parametrize(
    ("seed", "settings_of_webs"),
    [(1, {}), (2, NARROW), (3, {"fast_paths": False})],
    ids=["window", "pages", "by actors"],
)
def test_all_clients_see_one_history_on_any_instance(
    cluster: Cluster, engine: Engine, seed: int, settings_of_webs: dict[str, Any]
) -> None:
    """Mix events, runs, reports, deletes, transactions that roll back or commit late, and readers of all kinds."""
    webs = [cluster.start_web(wait=False, sse_heartbeat_seconds=0.3, **settings_of_webs) for _ in range(2)]
    workers = [cluster.start_worker()]
    for web in webs:
        cluster.wait_until_ready(web)
    urls = [web.url for web in webs]
    with watching(urls, engine, seed) as watchers:
        with writing(urls, engine, seed=seed) as writers:
            writers.until_each(6)
            watchers.join_in()
            writers.until_each(6)
        watchers.saw_everything()
        acknowledged_events_are_in_history(writers.acknowledged, engine)
    assert all(process.alive and "Traceback" not in process.log() for process in (*webs, *workers))
