"""Calls of the console's pages, of `coordinator top` and of a scraper, behind a large history."""

import sys
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote

from benchmarks.figures import Figures
from benchmarks.flood import key_of
from benchmarks.history import AGENT, OWNER, RARE_OWNER, History, fill_history
from benchmarks.stage import Stage

# A little longer than a snapshot of the metrics is kept, so that each round reads one.
PAUSE_SECONDS: Final = 5.1
SESSIONS: Final = ("pending", "running", "idle", "stopping", "finished", "failed", "stopped")
AUTH: Final = {"COORDINATOR_AUTH": "1"}


def console_reads(stage: Stage) -> list[Figures]:
    """Measure each call one after the other, without other load; `p95` is that of the slowest call."""
    runs, backlog, in_hand = (100_000, 2_000, 100) if stage.quick else (10_000_000, 197_000, 3_000)
    rounds = 3 if stage.quick else 25
    # Without workers, so that the backlog stays as it is.
    with stage.cluster(web=1, workers=0, settings=AUTH) as cluster:
        print("filling", runs, "runs", file=sys.stderr, flush=True)
        history = fill_history(cluster.database_url, runs=runs, backlog=backlog, in_hand=in_hand)
        tokens = {
            "admin": key_of(cluster, None),
            "user": key_of(cluster, OWNER),
            "rare": key_of(cluster, RARE_OWNER),
        }
        figures = [
            stage.run(cluster, "reads", paths=paths_of(history), tokens=tokens, rounds=rounds, pause=PAUSE_SECONDS)
            for _ in range(stage.repetitions)
        ]
    for name, value in sorted(figures[0].items()):
        if name.startswith("p95_"):
            print(f"{name[4:]:45} {figures[0][name.replace('p95', 'p50', 1)]:8.1f} {value:8.1f}", file=sys.stderr)
    return list(figures)


def paths_of(history: History) -> dict[str, str]:
    """Return the calls by what they show."""
    return _overview() | _searches(history) | _details(history)


def _ago(**span: float) -> str:
    return quote((datetime.now(UTC) - timedelta(**span)).isoformat())


def _overview() -> dict[str, str]:
    return {
        "me": "/me",
        "counts": "/runs/counts",
        "queues": "/queues",
        "system": "/system",
        "runners": "/runners",
        "submitted last hour": f"/stats/series?metric=submitted&step=60&since={_ago(hours=1)}",
        "ended last hour": f"/stats/series?metric=ended&by=status&step=60&since={_ago(hours=1)}",
        "waits last hour": f"/stats/series?metric=wait&step=60&since={_ago(hours=1)}",
        "submitted last day": f"/stats/series?metric=submitted&step=300&since={_ago(hours=24)}",
        "ended last day": f"/stats/series?metric=ended&by=status&step=300&since={_ago(hours=24)}",
        "waits last day": f"/stats/series?metric=wait&step=300&since={_ago(hours=24)}",
        "ended last day by minute": f"/stats/series?metric=ended&by=status&step=60&since={_ago(hours=24)}",
        "durations of 30 days": f"/stats/series?metric=duration&step=3600&since={_ago(days=30)}",
        "metrics": "/metrics/cluster",
        "ready": "/health/ready",
    }


def _searches(history: History) -> dict[str, str]:
    search = "/runs?fields=summary&limit=100"
    return {
        "newest": search,
        "pending": f"{search}&status=pending",
        "running": f"{search}&status=running",
        "unfinished": f"{search}&status=pending&status=claimed&status=running&status=stopping",
        "waiting": f"{search}&ready=false",
        "claimable": f"{search}&ready=true",
        "failed": f"{search}&status=failed",
        "stopped": f"{search}&status=stopped",
        "failed and stopped": f"{search}&status=failed&status=stopped",
        "completed": f"{search}&status=completed",
        "last ended": f"{search}&order=ended",
        "last failed": f"{search}&order=ended&status=failed",
        "frequent agent": f"{search}&agent_name={AGENT}",
        "unknown agent": f"{search}&agent_name=none",
        "agent in backlog": f"{search}&status=pending&agent_name=none",
        "frequent label": f"{search}&label=team%3Da",
        "rare label": f"{search}&label=batch%3Dnightly",
        "unknown label": f"{search}&label=batch%3Dnone",
        "label and agent": f"{search}&label=team%3Da&agent_name=none",
        "unknown runner": f"{search}&runner_id=lnch_none",
        "runner": f"{search}&runner_id={history.runner}",
        "unknown error": f"{search}&error_contains=nowhere",
        "a day ten days ago": f"{search}&created_after={_ago(days=10)}&created_before={_ago(days=9)}",
        "begin of an id": f"{search}&q={history.ended[:16]}",
        "session of a run": f"{search}&session_id={history.session}",
    }


def _details(history: History) -> dict[str, str]:
    return {
        "run": f"/runs/{history.ended}",
        "why": f"/runs/{history.pending}/why",
        "timeline": f"/runs/{history.ended}/timeline",
        "session": f"/sessions/{history.session}",
        "tree": f"/sessions/{history.session}/tree?depth=10&limit=500",
        "log": f"/sessions/{history.logged}/events?limit=1000",
        "end of log": f"/sessions/{history.logged}/events?limit=200&order=desc",
        "sessions": "/sessions?limit=100",
        **{f"sessions {status}": f"/sessions?limit=100&status={status}" for status in SESSIONS},
        "children": f"/sessions?limit=100&parent_session_id={history.session}",
        "why idle": f"/runners/{history.runner}/why-idle",
        "audit": "/audit",
        "keys": "/keys",
    }
