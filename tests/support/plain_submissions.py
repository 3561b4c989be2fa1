"""Submit as the web does: the statement of the plain case first, the verb for the items that it leaves."""

from collections.abc import Sequence

from sqlalchemy import Connection

from models.core.callers import Caller, Role
from models.core.errors import CoordinatorError
from models.core.plain import NotPlain
from models.runs.submission import NewRun, Submitted
from models.runs.submit import submit_runs
from models.runs.submit_plain import submit_plain
from runtime.postgres import autocommit
from tests.support.db_verbs import DbVerbs, start_submission

ANNA = Caller(Role.USER, "anna")


def submit_plain_first(db: DbVerbs, *items: NewRun) -> list[Submitted | CoordinatorError]:
    with autocommit(db.engine) as connection:
        results = submit_plain(connection, items)
    return _filled(results, db.submit(*left(items, results)))


def apply_plain_first(
    conn: Connection, items: Sequence[NewRun], *, most_demands: int = 0
) -> list[Submitted | CoordinatorError]:
    """Do both within the transaction of ``conn``."""
    results = submit_plain(conn, items)
    return _filled(results, submit_runs(conn, left(items, results), most_demands=most_demands))


def left(items: Sequence[NewRun], results: Sequence[Submitted | NotPlain]) -> list[NewRun]:
    """Return the items that are not plain."""
    return [item for item, result in zip(items, results, strict=True) if isinstance(result, NotPlain)]


def _filled(
    results: Sequence[Submitted | NotPlain], answers: Sequence[Submitted | CoordinatorError]
) -> list[Submitted | CoordinatorError]:
    rest = iter(answers)
    return [next(rest) if isinstance(result, NotPlain) else result for result in results]


def add_profile(db: DbVerbs) -> None:
    """Store the profile of starts without demands, which is the one that ``start_submission`` asks for."""
    db.accept(start_submission())
    db.rows("TRUNCATE runs, sessions, events, unnumbered_batches")
