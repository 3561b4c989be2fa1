"""Command `top`: one frame as scripts get it, and frames that fit narrow terminals."""

from datetime import UTC, datetime
from io import StringIO
from typing import cast

import pytest
from rich.console import Console

from cli.top_views import Reading, frame
from coordinator_client.operator_types import Readiness
from coordinator_client.overview_types import Queue, RunCounts, Series
from coordinator_client.types import Runner
from testkit.cluster import Cluster
from tests.support.coordination import Coordination


def reading(name: str) -> Reading:
    """Return figures with long names, a queue without runners and a lost runner."""
    now = datetime.now(UTC)
    matching = {"online": 0, "stale": 0, "full": 0, "free_slots": 0, "unlimited": 0}
    demands = {"executor_profile": name, "tags": ["gpu"]}
    queue = {
        "profile_id": 1,
        "demands": demands,
        "ready": 1_000_000,
        "oldest_ready_at": now.isoformat(),
        "waiting": 1,
        "in_hand": 7,
        "matching_runners": matching,
        "claims_per_minute": 1234.5,
        "eta_seconds": 90_000.0,
    }
    pending = {"ready": 1, "delayed": 2, "waiting": 3}
    counts = {
        "now": {"pending": pending, "claimed": 1, "running": 2, "stopping": 0},
        "ended": {"completed": 9, "failed": 1, "stopped": 0},
        "window": {"since": now.isoformat()},
        "exact": True,
        "as_of": now.isoformat(),
    }
    runner = {
        "hostname": name,
        "status": "stale",
        "lost": True,
        "capacity": 4,
        "runs_in_hand": 2,
        "seconds_since_heartbeat": 400.0,
        "executor_profile": name,
        "tags": [name],
    }
    series = {"step": 60, "series": [{"labels": {}, "points": [[now.timestamp() - 120, 10.0, 0.5, 0.9]]}]}
    return Reading(
        cast("Readiness", {"status": "degraded", "reason": "no worker did expire for 10 s"}),
        cast("RunCounts", counts),
        [cast("Queue", queue)],
        cast("Series", series),
        cast("Series", series),
        cast("Series", series),
        minutes=5,
        runners=[cast("Runner", runner)],
        fault="connection refused",
    )


@pytest.mark.parametrize("width", [60, 120])
def test_frame_fits_the_terminal_and_shows_trouble(width: int) -> None:
    """Draw without colours; text of runners and jobs controls no terminal."""
    written = StringIO()
    Console(file=written, width=width, no_color=True).print(frame(reading("very-long-\x1b[2J" * 9), "http://a", width))
    text = written.getvalue()
    assert max(map(len, text.splitlines())) <= width
    for shown in ("degraded: no worker", "connection refused", "1 ready, 2 delayed", "2 submitted", "lost", "1000000"):
        assert shown in text, shown
    assert "\x1b" not in text
    assert ("empty in" in text) == (width == 120)


def test_top_prints_one_frame_for_scripts(cluster: Cluster) -> None:
    """Show queues that no runner takes; without a coordinator exit with 3."""
    coordination = Coordination(cluster, cluster.start_web().url)
    coordination.submit("x", additional_demands={"tags": ["gpu"]})
    done = coordination.command("top", "--once")
    assert done.returncode == 0, done.stderr
    assert "1 ready, 0 delayed, 0 waiting" in done.stdout
    assert "#gpu" in done.stdout
    assert "\x1b" not in done.stdout
    assert coordination.command("top", "--once", "--url", "http://127.0.0.1:9").returncode == 3
