"""Holds as the requests make them: the verb, the wait for transactions that did not see it, and the settling."""

from typing import Any

from models.core.callers import ADMIN, Caller
from models.runs.holds import (
    Hold,
    HoldRun,
    RemoveHold,
    RunHeld,
    SetHold,
    hold_runs,
    remove_holds,
    set_holds,
    settle_holds,
    transactions_of_holds,
)
from models.state.holds import is_held
from tests.support.db_verbs import DbVerbs
from tests.support.runner_drains import wait_for_claims

# Ready runs to which a hold applies, and due first runs of sessions that nothing else keeps from being ready.
READY_THOUGH_HELD = f"SELECT count(*) FROM runs r WHERE r.status = 'pending' AND r.ready AND {is_held('r')}"
UNREADY_THOUGH_FREE = f"""
    SELECT count(*) FROM runs r WHERE r.status = 'pending' AND NOT r.ready AND NOT {is_held("r")}
      AND (r.not_before IS NULL OR r.not_before <= now())
      AND NOT EXISTS (SELECT 1 FROM runs e WHERE e.session_id = r.session_id AND e.session_seq < r.session_seq
                      AND e.status IN ('pending', 'claimed', 'running', 'stopping'))
"""


def settle(db: DbVerbs) -> None:
    wait_for_claims(db, transactions_of_holds)
    while db.do(settle_holds)[0].more:
        pass


def hold(db: DbVerbs, name: str = "test", **values: Any) -> Hold:
    (result,) = db.do(set_holds, [SetHold(ADMIN, name, **values)])
    assert isinstance(result, Hold), result
    settle(db)
    return result


def unhold(db: DbVerbs, name: str = "test") -> None:
    (result,) = db.do(remove_holds, [RemoveHold(ADMIN, name)])
    assert isinstance(result, Hold), result
    settle(db)


def hold_run(
    db: DbVerbs, run_id: str, *, held: bool = True, caller: Caller = ADMIN, note: str | None = None
) -> RunHeld:
    (result,) = db.do(hold_runs, [HoldRun(caller, run_id, held, note)])
    assert isinstance(result, RunHeld), result
    return result


def agrees(db: DbVerbs) -> None:
    """Check that every pending run is ready as the holds say."""
    assert db.one(READY_THOUGH_HELD) == 0, "ready though held"
    assert db.one(UNREADY_THOUGH_FREE) == 0, "not ready though free"
