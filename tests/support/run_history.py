"""Compare what clients and runners were told with what the database holds.

Read history from the `run_updated` rows, written in the transaction of each change, in the order of their ids.
"""

import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, Engine, text

from models.core.statuses import TERMINAL, TRANSITIONS, RunStatus
from models.schema.sql import sql
from testkit.recorded_events import RECORDED_EVENTS
from testkit.waiting import eventually
from tests.support.traffic import Ledger, Traffic

_RUNS = text("""
    SELECT run_id, session_id, status, attempt, runner_id, error, CAST(labels AS json) ->> 'key' AS key FROM runs
""")
_HISTORY = sql(
    "SELECT run_id, CAST(frame AS text) AS frame FROM $recorded WHERE kind = 'run_updated' ORDER BY id",
    recorded=RECORDED_EVENTS,
)
_UNFINISHED = text("SELECT count(*) FROM runs WHERE status NOT IN ('completed', 'failed', 'stopped')")

Shown = dict[str, Any]


def histories(engine: Engine) -> dict[str, list[Shown]]:
    """Return each run's feed lines, by run, in their order."""
    with engine.connect() as connection:
        return _histories(connection)


def _histories(connection: Connection) -> dict[str, list[Shown]]:
    found: dict[str, list[Shown]] = {}
    for row in connection.execute(_HISTORY):
        found.setdefault(row.run_id, []).append(json.loads(row.frame)["run"])
    return found


def claims(history: Iterable[Shown]) -> int:
    """Count the claims of the run."""
    return sum(one["status"] == RunStatus.CLAIMED for one in history)


def until_all_ended(engine: Engine, within: float = 60) -> None:
    """Wait until every run is in a terminal status."""

    def ended() -> bool:
        with engine.connect() as connection:
            return not connection.execute(_UNFINISHED).scalar_one()

    eventually(ended, within, every=0.1, what="the end of all runs")


def finish(traffic: Traffic, engine: Engine, within: float = 60) -> None:
    """Stop submitting; return when all runs have ended and every runner has its answer."""
    traffic.finish_submitting()
    until_all_ended(engine, within)
    traffic.until_reported()


def assert_one_history(engine: Engine) -> dict[str, list[Shown]]:
    """Check that each run took allowed steps, had one owner at a time and ended once; return the histories.

    A claim follows a claim only over pending: so no two overlap. Between two lines the owner does not change.
    """
    # Read both in one snapshot, since traffic continues.
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        told = _histories(connection)
        runs = {row.run_id: row for row in connection.execute(_RUNS)}
    assert told.keys() == runs.keys()
    for run_id, history in told.items():
        statuses = [RunStatus(one["status"]) for one in history]
        assert statuses[0] is RunStatus.PENDING, (run_id, history)
        for (before, after), (one, next_one) in zip(pairwise(statuses), pairwise(history), strict=True):
            assert after in TRANSITIONS[before], (run_id, history)
            if before is not RunStatus.PENDING and after is not RunStatus.PENDING:
                assert one["runner_id"] == next_one["runner_id"], (run_id, history)
        assert sum(status in TERMINAL for status in statuses) == (runs[run_id].status in TERMINAL), (run_id, history)
        assert statuses[-1] == runs[run_id].status, (run_id, history)
    return told


def assert_nothing_lost_or_doubled(engine: Engine, ledger: Ledger, *, unheard_submissions: bool = False) -> None:
    """Check that every accepted submission is one run, completed; that every claim reached one poll; that every end was
    told once.

    ``unheard_submissions``: submissions without a key may have had no answer, and are runs or not.
    """
    told = assert_one_history(engine)
    with engine.connect() as connection:
        runs = connection.execute(_RUNS).all()
    by_id = {row.run_id: row for row in runs}
    by_key = Counter(row.key for row in runs)

    assert max(by_key.values(), default=1) == 1
    assert set(ledger.accepted.values()) <= by_id.keys()
    if not unheard_submissions:
        assert by_key.keys() == ledger.accepted.keys()
    not_completed = [tuple(row) for row in runs if row.status != RunStatus.COMPLETED]
    assert not not_completed

    given = Counter(one.run_id for one in ledger.deliveries)
    assert len({one.claim_token for one in ledger.deliveries}) == len(ledger.deliveries)
    for run_id, history in told.items():
        assert given[run_id] <= claims(history), (run_id, history, ledger.deliveries)
        # Another start follows an accepted one only if the run was taken away in between.
        starts = sum(one.run_id == run_id for one in ledger.said_with(200, "started"))
        begun = sum(one["status"] == RunStatus.RUNNING for one in history)
        assert starts <= begun, (run_id, history)
    ended = Counter(one.run_id for one in ledger.said_with(200, "completed"))
    assert set(ended.values()) <= {1}
    assert ended.keys() == by_id.keys()


def reports_refused(ledger: Ledger) -> list[Any]:
    return [one for one in ledger.said if one.code != 200]
