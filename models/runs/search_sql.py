"""Statements of searches: the filters, and the walks along the indexes of runs."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    DateTime,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    text,
    true,
    tuple_,
)

from models.core.callers import Role
from models.core.statuses import UNSUCCESSFUL
from models.runs.lists import LARGE_OF_RUNS, RUN_CONDITIONS, Listed, after_key
from models.runs.prompts import BEGIN_OF_PARAMETERS, prompt_of
from models.schema.columns import any_of
from models.schema.sql import literals, sql
from models.schema.tables import feed_head, runs
from models.state.holds import is_held
from models.state.runs import RUN_COLUMNS, TIMEOUT_AT, as_run
from models.state.visibility import in_scope

ERROR_SHOWN: Final = 200
PROMPT: Final = "prompt"


class Order(StrEnum):
    CREATED = "created"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Run without its large values; ``error`` and ``prompt`` are cut to 200 characters."""

    run_id: str
    type: str
    session_id: str
    agent_name: str | None
    project_dir: str | None
    parent_session_id: str | None
    execution_mode: str
    status: str
    ready: bool
    runner_id: str | None
    error: str | None
    created_at: datetime
    claimed_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    timeout_at: datetime | None
    attempt: int
    priority: int
    not_before: datetime | None
    max_attempts: int
    labels: dict[str, str] | None
    owner: str | None
    replay_of: str | None
    prompt: str | None


def _id_range(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Compare in the order of any collation: "g" is behind all digits of generated ids."""
    start = bindparam(name, type_=Text)
    return and_(column >= start, column < start + literal_column("'g'"), func.starts_with(column, start))


def _moment(name: str) -> Any:
    return bindparam(name, type_=DateTime(timezone=True))


CONDITIONS: Final[Mapping[str, ColumnElement[bool]]] = {
    **RUN_CONDITIONS,
    "run_ids": runs.c.run_id == any_of("run_ids"),
    "run_start": _id_range(runs.c.run_id, "run_start"),
    "session_start": or_(
        _id_range(runs.c.session_id, "session_start"), runs.c.session_id == bindparam("session_start", type_=Text)
    ),
    "id": or_(runs.c.session_id == bindparam("id", type_=Text), runs.c.run_id == bindparam("id", type_=Text)),
    "owner": runs.c.owner == bindparam("owner"),
    "type": runs.c.type == bindparam("type"),
    "parent_session_id": runs.c.parent_session_id == bindparam("parent_session_id"),
    "replay_of": runs.c.replay_of == bindparam("replay_of", type_=Text),
    "min_attempt": runs.c.attempt >= bindparam("min_attempt", type_=Integer),
    "ready": and_(sql("runs.status = $PENDING"), runs.c.ready == bindparam("ready", type_=Boolean)),
    "held": and_(sql("runs.status = $PENDING"), sql("($is_held) = :held", is_held=is_held("runs"))),
    "error_contains": func.strpos(func.lower(runs.c.error), func.lower(bindparam("error_contains", type_=Text))) > 0,
    "created_after": runs.c.created_at >= _moment("created_after"),
    "created_before": runs.c.created_at < _moment("created_before"),
    "ended_after": runs.c.completed_at >= _moment("ended_after"),
    "ended_before": runs.c.completed_at < _moment("ended_before"),
    "ended": runs.c.completed_at.is_not(None),
}
_SUMMARY = tuple(
    next(column for column in RUN_COLUMNS if column.key == TIMEOUT_AT)
    if field.name == TIMEOUT_AT
    else func.left(runs.c.error, literal_column(str(ERROR_SHOWN))).label("error")
    if field.name == "error"
    else BEGIN_OF_PARAMETERS
    if field.name == PROMPT
    else runs.c[field.name]
    for field in fields(RunSummary)
)
_PROMPT_AT = [field.name for field in fields(RunSummary)].index(PROMPT)


def _as_summary(row: Any) -> RunSummary:
    values = list(row[: len(_SUMMARY)])
    values[_PROMPT_AT] = prompt_of(values[_PROMPT_AT])
    return RunSummary(*values)


def _listed(moment: str, *, summary: bool) -> Listed[Any]:
    if summary:
        return Listed(_as_summary, runs, runs.c.run_id, _SUMMARY, CONDITIONS, (runs.c.labels,), moment)
    return Listed(as_run, runs, runs.c.run_id, RUN_COLUMNS, CONDITIONS, LARGE_OF_RUNS, moment)


LISTED: Final = {
    (order, summary): _listed(moment, summary=summary)
    for order, moment in ((Order.CREATED, "created_at"), (Order.ENDED, "completed_at"))
    for summary in (False, True)
}


class Walk(NamedTuple):
    """Walk over runs by one index. Its ``filters`` bound the walk; others are checked row by row."""

    name: str
    moment: ColumnElement[Any]
    where: ColumnElement[bool]
    filters: frozenset[str]
    # The index has the runs of one owner together.
    by_owner: bool = False
    # The index has another order: all its runs are read in one step.
    at_once: bool = False


NEWEST = Walk(
    "newest", runs.c.created_at, true(), frozenset({"created_after", "created_before", "owner"}), by_owner=True
)
LAST_ENDED = Walk(
    "ended", runs.c.completed_at, runs.c.completed_at.is_not(None), frozenset({"ended_after", "ended_before", "ended"})
)
# A literal each: beside the condition of the index, one on the status would count twice in the planner's estimate.
NEWEST_UNSUCCESSFUL = {
    status: Walk(
        str(status),
        runs.c.created_at,
        and_(true(), sql("runs.status IN $one", one=literals([status]))),
        frozenset({"created_after", "created_before", "owner", "statuses"}),
        by_owner=True,
    )
    for status in UNSUCCESSFUL
}
PENDING = Walk(
    "pending",
    runs.c.created_at,
    and_(true(), sql("runs.status = $PENDING")),
    frozenset({"created_after", "created_before", "owner"}),
    by_owner=True,
)
WAITING = Walk(
    "waiting", runs.c.created_at, and_(sql("runs.status = $PENDING"), ~runs.c.ready), frozenset(), at_once=True
)
IN_HAND = Walk("in hand", runs.c.created_at, and_(true(), sql("runs.status IN $IN_HAND")), frozenset(), at_once=True)
LABELLED = Walk("labelled", runs.c.created_at, true(), frozenset({"labels"}), at_once=True)


@lru_cache(maxsize=256)
def walk_statement(
    walk: Walk, wanted: frozenset[str], role: Role, *, is_next: bool, at_once: int | None
) -> Select[Any]:
    """Return the statement of a step: one row per hit, each with the number of rows walked and the last one's key."""
    conditions = {name: CONDITIONS[name] for name in sorted(wanted & CONDITIONS.keys())}
    where = [walk.where, *(condition for name, condition in conditions.items() if name in walk.filters)]
    checked = [condition for name, condition in conditions.items() if name not in walk.filters]
    scope = in_scope(role, runs.c.owner, runs.c.session_id)
    if scope is not None:
        (where if walk.by_owner and role is Role.USER else checked).append(scope)
    if is_next:
        (checked if walk.at_once else where).append(tuple_(walk.moment, runs.c.run_id) < after_key(walk.moment))
    newest = (walk.moment.desc(), runs.c.run_id.desc())
    rows = select(runs.c.run_id, walk.moment.label("moment"), and_(true(), *checked).label("hit")).where(*where)
    # A number that the planner sees: for a parameter it expects a tenth of the rows, and passes by the walk's index.
    rows = (
        rows.order_by(*newest).limit(bindparam("rows", type_=BigInteger))
        if at_once is None
        else rows.limit(literal_column(str(at_once)))
    )
    walked = rows.cte("walked").prefix_with("MATERIALIZED")
    number = select(func.count()).select_from(walked).scalar_subquery()
    last = (
        select(number.label("walked"), walked.c.moment.label("last_moment"), walked.c.run_id.label("last_id"))
        .order_by(walked.c.moment, walked.c.run_id)
        .limit(1)
        .subquery("last")
    )
    hits = (
        select(walked.c.moment, walked.c.run_id)
        .where(walked.c.hit)
        .order_by(walked.c.moment.desc(), walked.c.run_id.desc())
        .limit(bindparam("most", type_=BigInteger))
        .subquery("hits")
    )
    return (
        select(*last.c, hits.c.moment, hits.c.run_id, feed_head.c.epoch, feed_head.c.last_pos)
        .select_from(feed_head.outerjoin(last, true()).outerjoin(hits, true()))
        .order_by(hits.c.moment.desc(), hits.c.run_id.desc())
    )


@lru_cache(maxsize=256)
def exact_ids_statement(wanted: frozenset[str], role: Role, order: Order) -> Select[Any]:
    """Return the statement of the ids of all runs that satisfy filters which an index serves, newest first."""
    moment = runs.c.completed_at if order is Order.ENDED else runs.c.created_at
    found = select(moment.label("moment"), runs.c.run_id).where(*(CONDITIONS[name] for name in sorted(wanted)))
    scope = in_scope(role, runs.c.owner, runs.c.session_id)
    if scope is not None:
        found = found.where(scope)
    return found.order_by(moment.desc(), runs.c.run_id.desc()).limit(bindparam("most", type_=BigInteger))


# Let the planner say, by its statistics, how many runs have the labels: none are read.
LABELLED_ESTIMATE: Final = text("EXPLAIN (FORMAT JSON) SELECT FROM runs WHERE labels @> CAST(:labels AS jsonb)")
