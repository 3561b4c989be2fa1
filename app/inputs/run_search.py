"""Query parameters of `GET /runs`: the filters of deployed clients, and those of a search."""

from collections.abc import Sequence
from typing import Final

from starlette.datastructures import QueryParams
from starlette.requests import Request

from app.http.bodies import Fault, Invalid
from app.http.query import (
    CURSOR,
    CURSOR_IN_BODY,
    LIMIT,
    Choice,
    Choices,
    Flag,
    Moment,
    Parameter,
    Text,
    Texts,
    Whole,
    strict_query,
)
from models.core.callers import Caller, Role
from models.core.statuses import TERMINAL, RunStatus, RunType
from models.core.storable_text import storable
from models.runs.lists import RunFilter
from models.runs.search import SHORTEST_PREFIX, RunSearch
from models.runs.search_sql import Order

MOST_IDS: Final = 200
LONGEST_TEXT: Final = 256
SUMMARY: Final = "summary"

STATUS: Final = Texts("status", "Only runs in this status; may be repeated")
SESSION_ID: Final = Text("session_id", "Only runs of this session")
RUNNER_ID: Final = Text("runner_id", "Only runs of this runner")
AGENT_NAME: Final = Text("agent_name", "Only runs of this agent")
LABEL: Final = Texts("label", "`key=value`; may be repeated, all must be there")
# Parameters of the list that clients of the coordinator before this one do not know.
OWN: Final[tuple[Parameter, ...]] = (SESSION_ID, RUNNER_ID, AGENT_NAME, LABEL, LIMIT, CURSOR)
PLAIN: Final[tuple[Parameter, ...]] = (STATUS, *OWN, CURSOR_IN_BODY)

NOT_STATUS: Final = Choices("not_status", "No runs in this status; may be repeated", among=tuple(RunStatus))
RUN_ID: Final = Texts("run_id", f"Only these runs; may be repeated, up to {MOST_IDS} times")
OWNER: Final = Text("owner", "Only runs of this owner; for admins")
TYPE: Final = Choice("type", "Only runs of this type", among=tuple(RunType))
PARENT: Final = Text("parent_session_id", "Only runs of children of this session")
REPLAY_OF: Final = Text("replay_of", "Only replays of this run")
MIN_ATTEMPT: Final = Whole("min_attempt", "Only runs that were started so often", least=0, most=1000)
READY: Final = Flag("ready", "Only pending runs that can be claimed now, or with false those that wait")
HELD: Final = Flag("held", "Only pending runs to which a hold applies, or with false those to which none does")
ERROR_CONTAINS: Final = Text("error_contains", "Only runs whose error contains this text, in any case of letters")
CREATED_AFTER: Final = Moment("created_after", "Only runs created at this time or later")
CREATED_BEFORE: Final = Moment("created_before", "Only runs created before this time")
ENDED_AFTER: Final = Moment("ended_after", "Only runs that ended at this time or later")
ENDED_BEFORE: Final = Moment("ended_before", "Only runs that ended before this time")
Q: Final = Text(
    "q", f"Only runs with this run or session id; of a generated id the first {SHORTEST_PREFIX} characters suffice"
)
ORDER: Final = Choice(
    "order", "`created` (newest first) or `ended` (last ended first, ended runs only)", among=tuple(Order)
)
FIELDS: Final = Choice(
    "fields", "`summary`: no parameters and demands, error and prompt cut to 200 characters", among=(SUMMARY,)
)
SEARCH: Final[tuple[Parameter, ...]] = (
    NOT_STATUS,
    RUN_ID,
    OWNER,
    TYPE,
    PARENT,
    REPLAY_OF,
    MIN_ATTEMPT,
    READY,
    HELD,
    ERROR_CONTAINS,
    CREATED_AFTER,
    CREATED_BEFORE,
    ENDED_AFTER,
    ENDED_BEFORE,
    Q,
    ORDER,
    FIELDS,
)
# Filters of failed runs.
FAILURE: Final[tuple[Parameter, ...]] = (
    AGENT_NAME,
    LABEL,
    OWNER,
    TYPE,
    PARENT,
    ERROR_CONTAINS,
    CREATED_AFTER,
    CREATED_BEFORE,
    ENDED_AFTER,
    ENDED_BEFORE,
)
_SEARCH_NAMES: Final = frozenset(parameter.name for parameter in SEARCH)
_UNFINISHED_ONLY: Final = frozenset(RunStatus) - TERMINAL


def run_filter(query: QueryParams) -> RunFilter:
    """Return the filters of deployed clients; other parameters are ignored."""
    return RunFilter(
        statuses=STATUS.of(query),
        session_id=SESSION_ID.of(query),
        runner_id=RUNNER_ID.of(query),
        agent_name=AGENT_NAME.of(query),
        labels=_labels(query.getlist(LABEL.name)),
    )


def run_search(request: Request, caller: Caller) -> RunSearch | None:
    """Return the search that a request asks for, None for one without a parameter of a search.

    Raises Invalid for unknown and doubled parameters, and for filters that contradict each other.
    """
    if not _SEARCH_NAMES.intersection(request.query_params):
        return None
    return search_of(strict_query(request, (*PLAIN, *SEARCH)), caller)


def search_of(query: QueryParams, caller: Caller) -> RunSearch:
    """Return the search of a query that names known parameters. Raises Invalid for values and contradictions."""
    plain = run_filter(query)
    search = RunSearch(
        statuses=plain.statuses,
        session_id=plain.session_id,
        runner_id=plain.runner_id,
        agent_name=plain.agent_name,
        labels=plain.labels,
        not_statuses=NOT_STATUS.all_of(query),
        run_ids=RUN_ID.of(query),
        owner=owner_of(query, caller),
        type=TYPE.of(query),
        parent_session_id=PARENT.of(query),
        replay_of=REPLAY_OF.of(query),
        min_attempt=MIN_ATTEMPT.of(query),
        ready=READY.of(query),
        held=HELD.of(query),
        error_contains=ERROR_CONTAINS.of(query),
        created_after=CREATED_AFTER.of(query),
        created_before=CREATED_BEFORE.of(query),
        ended_after=ENDED_AFTER.of(query),
        ended_before=ENDED_BEFORE.of(query),
        id_start=Q.of(query),
        order=Order(ORDER.of(query) or Order.CREATED),
        summary=FIELDS.of(query) == SUMMARY,
    )
    faults = [*_bounds(search), *_contradictions(search)]
    if faults:
        raise Invalid(faults)
    return search


def owner_of(given: QueryParams, caller: Caller) -> str | None:
    """Return the owner that an admin asks for. Raises Invalid for others, who see their own runs."""
    owner = OWNER.of(given)
    if owner is not None and caller.role is not Role.ADMIN:
        raise Invalid([Fault("filter", ("query", "owner"), "Only an admin may name an owner: leave it out")])
    return owner


def _bounds(search: RunSearch) -> list[Fault]:
    faults: list[Fault] = []
    if len(search.run_ids) > MOST_IDS:
        faults.append(_fault("run_id", f"Should be given {MOST_IDS} times at most"))
    if search.error_contains is not None and len(search.error_contains) > LONGEST_TEXT:
        faults.append(_fault("error_contains", f"Should have {LONGEST_TEXT} characters at most"))
    start = search.id_start
    if start is not None and start.startswith(("run_", "ses_")) and len(start) < SHORTEST_PREFIX:
        faults.append(_fault("q", f"Should have at least {SHORTEST_PREFIX} characters of an id"))
    return faults


def _contradictions(search: RunSearch) -> list[Fault]:
    """Return the faults of filters that no run can satisfy together, whatever runs there are."""
    faults = []
    if set(search.statuses) & set(search.not_statuses):
        faults.append(_fault("not_status", "Should name no status that `status` names"))
    if set(search.not_statuses) == set(RunStatus):
        faults.append(_fault("not_status", "Should leave a status"))
    for name, after, before in (
        ("created_before", search.created_after, search.created_before),
        ("ended_before", search.ended_after, search.ended_before),
        ("ended_before", search.created_after, search.ended_before),
    ):
        if after is not None and before is not None and after >= before:
            faults.append(_fault(name, "Should be later than the begin of the period"))
    given = set(search.statuses)
    only_ended = search.order is Order.ENDED or search.ended_after is not None or search.ended_before is not None
    if only_ended and given and given <= _UNFINISHED_ONLY:
        faults.append(_fault("status", "Should name an ended status with order=ended, ended_after or ended_before"))
    for name in ("ready", "held"):
        if getattr(search, name) is None:
            continue
        if only_ended:
            faults.append(_fault(name, "Should be left out with order=ended, ended_after or ended_before"))
        if (given and RunStatus.PENDING not in given) or RunStatus.PENDING in search.not_statuses:
            faults.append(_fault(name, "Should be left out unless pending runs are asked for"))
    if search.ready and search.held:
        faults.append(_fault("held", "Should be false, or left out, with ready=true: held runs are not ready"))
    return faults


def _fault(name: str, message: str) -> Fault:
    return Fault("filter", ("query", name), message)


def _labels(given: Sequence[str]) -> dict[str, str]:
    """Return the labels of `key=value` texts; a run must have all of them. Raises Invalid."""
    labels: dict[str, str] = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not separator:
            raise Invalid([Fault("label", ("query", "label"), "Should be key=value")])
        labels[storable(key)] = storable(value)
    return labels
