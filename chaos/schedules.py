"""A schedule of every second beside the load: each of its times must have one decision, and each decision its run."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any, Final

import httpx
from sqlalchemy import Connection, text

from chaos.cluster import ChaosCluster
from models.schedules.spec import Spec
from models.schedules.times import due_times
from models.schema.sql import sql
from runtime.processes import wait_until

NAME: Final = "chaos"
EVERY: Final = Spec(every=1)
_BODY: Final[dict[str, Any]] = {
    "spec": {"every_seconds": 1},
    "overlap": "allow",
    "catch_up": {"within_seconds": 3600, "most": 20},
    "run": {"type": "start_session", "parameters": {"prompt": "scheduled"}, "no_match_timeout_seconds": 3600},
}
_MOST: Final = 1_000_000

SCHEDULED: Final = text("SELECT run_id FROM runs WHERE labels ? 'schedule'")
_FIRES: Final = text("""
    SELECT fire_at, first_fire_at, times, outcome, reason, run_id FROM schedule_fires f
    JOIN schedules s USING (schedule_no) WHERE s.schedule_id = :name ORDER BY fire_at
""")
_RUNS: Final = sql("SELECT run_id, labels ->> 'fire_at' AS fire_at FROM runs WHERE labels ->> 'schedule' = :name")


def begin_schedule(cluster: ChaosCluster) -> None:
    httpx.put(f"{cluster.balancer}/schedules/{NAME}", json=_BODY, timeout=30).raise_for_status()


def end_schedule(cluster: ChaosCluster, within: float) -> None:
    """Pause it: what is due by then is decided."""

    def pauses() -> bool:
        try:
            return httpx.post(f"{cluster.balancer}/schedules/{NAME}/pause", timeout=20).status_code == 200
        except httpx.TransportError:
            return False

    if not wait_until(pauses, within=within, every=0.5):
        raise AssertionError("the schedule was not paused")


def faults_of_schedules(connection: Connection) -> tuple[int, list[str]]:
    """Return the number of decisions, and what is wrong with them."""
    fires = connection.execute(_FIRES, {"name": NAME}).all()
    if not fires:
        return 0, []
    findings = [f"{fire.fire_at} failed: {fire.reason}" for fire in fires if fire.outcome in {"failed", "skipped"}]
    decided: Counter[datetime] = Counter()
    for fire in fires:
        begin = fire.first_fire_at or fire.fire_at
        covered = due_times(EVERY, begin - timedelta(microseconds=1), fire.fire_at, _MOST)
        decided.update(covered)
        # More than a thousand are not counted.
        if fire.times != len(covered) and fire.times < 1000:
            findings.append(f"{fire.fire_at} stands for {fire.times} times, not for {len(covered)}")
    first = fires[0].first_fire_at or fires[0].fire_at
    expected = due_times(EVERY, first - timedelta(microseconds=1), fires[-1].fire_at, _MOST)
    findings += [f"{moment} has no decision" for moment in expected if moment not in decided]
    findings += [f"{moment} has {number} decisions" for moment, number in decided.items() if number > 1]
    runs = {row.run_id: row.fire_at for row in connection.execute(_RUNS, {"name": NAME})}
    doubled = Counter(runs.values())
    findings += [f"{moment} has {number} runs" for moment, number in doubled.items() if number > 1]
    submitted = {fire.run_id for fire in fires if fire.run_id is not None}
    findings += [f"the run of a decision is not there: {run_id}" for run_id in submitted - runs.keys()]
    findings += [f"a run has no decision: {run_id}" for run_id in runs.keys() - submitted]
    return len(decided), findings
