"""Move demand profiles and their deadlines in time."""

from datetime import datetime

from models.core.callers import ADMIN
from models.state.runs import Run, get_run
from tests.support.clocks import due, pass_time
from tests.support.db_verbs import DbVerbs


def no_match_due(db: DbVerbs, run_id: str, ago: float = 3600) -> None:
    """Let the run's no-match deadline have passed so long ago, with no live registration for it."""
    due(db, run_id, "match_deadline_at", ago)
    seconds = ago + db.run(run_id).no_match_timeout_seconds
    unmatched_for(db, run_id, seconds)


def unmatched_for(db: DbVerbs, run_id: str, seconds: float) -> None:
    """Let no live registration have satisfied the run's demands for so long, if none does."""
    db.rows(
        "UPDATE demand_profiles SET unmatched_since = clock_timestamp() - make_interval(secs => :s) "
        "WHERE profile_id = :p AND unmatched_since IS NOT NULL",
        s=seconds,
        p=db.run(run_id).profile_id,
    )
    pass_time(db, "runs", "unmatched_since", seconds, "run_id = :r", r=run_id)


def timeout_at(db: DbVerbs, run_id: str) -> datetime | None:
    """Return the run's `timeout_at` as clients read it."""
    run = db.do(get_run, ADMIN, run_id)
    assert isinstance(run, Run)
    return run.timeout_at
