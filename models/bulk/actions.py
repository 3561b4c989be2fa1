"""Act on the runs of a chunk through the verbs of single requests."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, text

from models.core import errors
from models.core.callers import Caller
from models.core.errors import CoordinatorError, InvalidTransition, NotFound, RunNotEnded, StopSessionFirst
from models.core.ids import new_id
from models.core.limits import Limits
from models.core.statuses import TERMINAL, BulkAction, RunStatus, StopCause
from models.registries.blueprints.dependencies import ResolutionError
from models.registries.blueprints.mcp_references import McpConfigMissing, McpReferenceUnresolved
from models.registries.blueprints.resolve import ScriptNotFound
from models.runs.delete import Deleted, DeleteSession, delete_sessions
from models.runs.holds import HoldRun, RunHeld, hold_runs
from models.runs.replay import Replay, ReplayResult, replay_runs
from models.runs.search import RunSearch, search_ids
from models.runs.stop import Stopped, StopRun, stop_runs
from models.runs.submission import Submitted
from models.state.locks import lock_runs

ReplayVerb: TypeAlias = Callable[[Connection, Sequence[Replay]], Sequence[ReplayResult]]


class Skipped(StrEnum):
    """Reason for which a run was left as it is."""

    ENDED = "already ended"
    STOPPING = "already stopping"
    CHANGED = "no longer matches the filter"
    GONE = "deleted meanwhile"
    ALIVE = "its session has not ended"
    UNFINISHED = "not ended yet"
    HELD = "already held"
    NOT_HELD = "not held"


@dataclass(slots=True)
class Acted:
    """Ids of the runs that were changed, those that were skipped with the reason, and those with errors.

    ``runners`` have stops to be told of. ``ended_runs``: others may be ready now, and parents owed results.
    """

    changed: list[str] = field(default_factory=list)
    skipped: dict[str, Skipped] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    runners: frozenset[str] = frozenset()
    ended_runs: bool = False


_THERE: Final = text("SELECT run_id, session_id FROM runs WHERE run_id = ANY(CAST(:run_ids AS text[]))")

_TEXTS: Final[Mapping[type[CoordinatorError], Callable[[Any], str]]] = {
    errors.NotFound: lambda error: f"{error.noun.capitalize()} '{error.id}' not found",
    errors.ParentOfAnotherOwner: str,
    errors.TooDeep: str,
    errors.TooManyDemands: lambda error: f"At most {error.limit} distinct sets of demands are allowed",
    errors.PromptRequired: lambda _: "Without an agent the parameters must be a prompt",
    ResolutionError: lambda error: str(error.text_of_list()),
    ScriptNotFound: str,
    McpReferenceUnresolved: str,
    McpConfigMissing: str,
    errors.SchemaUnchecked: lambda error: (
        f"Agent '{error.agent_name}' has a schema of its parameters: replay the run by itself"
    ),
}


def act(
    conn: Connection,
    action: BulkAction,
    caller: Caller,
    run_ids: Sequence[str],
    which: RunSearch,
    changes: Mapping[str, Any],
    *,
    limits: Limits,
    replay: ReplayVerb = replay_runs,
) -> Acted:
    """Act for the caller on the runs that still satisfy the search; runs of other owners do not."""
    if not run_ids:
        return Acted()
    match action:
        case BulkAction.STOP:
            return _stop(conn, caller, run_ids, which, limits)
        case BulkAction.DELETE:
            return _delete(conn, caller, run_ids, which)
        case BulkAction.REPLAY:
            return _replay(conn, caller, run_ids, which, changes, replay)
        case BulkAction.HOLD:
            return _hold(conn, caller, run_ids, which, held=True, note=changes.get("note"))
        case BulkAction.RELEASE:
            return _hold(conn, caller, run_ids, which, held=False, note=None)


def sessions_of(conn: Connection, run_ids: Sequence[str]) -> dict[str, str]:
    """Return the session of each run that exists."""
    return {row.run_id: row.session_id for row in conn.execute(_THERE, {"run_ids": list(run_ids)})}


def _left(conn: Connection, caller: Caller, run_ids: Sequence[str], which: RunSearch, acted: Acted) -> dict[str, str]:
    """Return the session of each run that is to be acted on; note the others as skipped."""
    there = sessions_of(conn, run_ids)
    matching = replace(which, run_ids=tuple(run_ids))
    still = set(search_ids(conn, caller, matching, limit=len(run_ids)).run_ids)
    for run_id in run_ids:
        if run_id not in still:
            acted.skipped[run_id] = Skipped.CHANGED if run_id in there else Skipped.GONE
    return {run_id: there[run_id] for run_id in run_ids if run_id in still and run_id in there}


def _stop(conn: Connection, caller: Caller, run_ids: Sequence[str], which: RunSearch, limits: Limits) -> Acted:
    acted = Acted()
    # Lock them before the filter is looked at: a run that a runner starts meanwhile may not match any more.
    before = lock_runs(conn, run_ids).runs
    wanted: list[str] = []
    for run_id in _left(conn, caller, run_ids, which, acted):
        run = before[run_id]
        if run.status in TERMINAL:
            acted.skipped[run_id] = Skipped.ENDED
        elif run.status == RunStatus.STOPPING and run.stop_cause == StopCause.STOP:
            acted.skipped[run_id] = Skipped.STOPPING
        else:
            wanted.append(run_id)
    results = stop_runs(conn, [StopRun(caller, run_id) for run_id in wanted], limits=limits)
    stopped = [result for result in results if isinstance(result, Stopped)]
    for run_id, result in zip(wanted, results, strict=True):
        if isinstance(result, NotFound):
            acted.skipped[run_id] = Skipped.GONE
        else:
            acted.changed.append(run_id)
    acted.runners = frozenset(each.runner_to_notify for each in stopped if each.runner_to_notify is not None)
    acted.ended_runs = any(each.ended for each in stopped)
    return acted


def _delete(conn: Connection, caller: Caller, run_ids: Sequence[str], which: RunSearch) -> Acted:
    acted = Acted()
    sessions = _left(conn, caller, run_ids, which, acted)
    wanted = sorted(set(sessions.values()))
    found = delete_sessions(conn, [DeleteSession(caller, session_id, ended_only=True) for session_id in wanted])
    results = dict(zip(wanted, found, strict=True))
    for run_id, session_id in sessions.items():
        match results[session_id]:
            case Deleted():
                acted.changed.append(run_id)
            case StopSessionFirst():
                acted.skipped[run_id] = Skipped.ALIVE
            case NotFound():
                acted.skipped[run_id] = Skipped.GONE
    # Children become roots, and a deleted child may have been the last one that its parent waits for.
    acted.ended_runs = bool(acted.changed)
    return acted


def _replay(
    conn: Connection,
    caller: Caller,
    run_ids: Sequence[str],
    which: RunSearch,
    changes: Mapping[str, Any],
    replay: ReplayVerb,
) -> Acted:
    acted = Acted()
    wanted = list(_left(conn, caller, run_ids, which, acted))
    items = [Replay(caller, run_id, new_id("run_"), new_id("ses_"), changes) for run_id in wanted]
    results = replay(conn, items)
    for run_id, result in zip(wanted, results, strict=True):
        match result:
            case Submitted():
                acted.changed.append(run_id)
            case RunNotEnded():
                acted.skipped[run_id] = Skipped.UNFINISHED
            case NotFound(noun="run"):
                acted.skipped[run_id] = Skipped.GONE
            case _:
                acted.errors[run_id] = error_text(result)
    return acted


def _hold(
    conn: Connection, caller: Caller, run_ids: Sequence[str], which: RunSearch, *, held: bool, note: str | None
) -> Acted:
    acted = Acted()
    # As for a stop: a run that ends meanwhile may not match any more.
    lock_runs(conn, run_ids)
    wanted = list(_left(conn, caller, run_ids, which, acted))
    results = hold_runs(conn, [HoldRun(caller, run_id, held, note) for run_id in wanted])
    for run_id, result in zip(wanted, results, strict=True):
        match result:
            case RunHeld(changed=True):
                acted.changed.append(run_id)
            case RunHeld():
                acted.skipped[run_id] = Skipped.HELD if held else Skipped.NOT_HELD
            case InvalidTransition():
                acted.skipped[run_id] = Skipped.ENDED
            case _:
                acted.skipped[run_id] = Skipped.GONE
    return acted


def error_text(error: CoordinatorError) -> str:
    """Return what to tell the owner of a bulk."""
    described = _TEXTS.get(type(error))
    return type(error).__name__ if described is None else described(error)
