"""Bodies of bulks and replays: filters by the names of `GET /runs`, and changes by those of a submission."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final, NamedTuple

import orjson
from starlette.datastructures import QueryParams

from app.http.bodies import Fault, Invalid, Loc, TooLarge, checked
from app.http.query import CURSOR, CURSOR_IN_BODY, LIMIT
from app.inputs.parameters import check_parameters
from app.inputs.run_search import FIELDS, PLAIN, SEARCH, search_of
from app.inputs.submission import default_no_match_timeout, default_run_timeout, demands_of
from app.schemas.bulk import MOST_RUNS, ReplayChanges, StartBulk
from models.core.callers import Caller
from models.core.statuses import BulkAction
from models.core.storable_text import storable
from models.runs.search import RunSearch
from runtime.settings import Settings

MOST_VALUES: Final = 1_000
LONGEST_FILTER: Final = 64 * 1024
_PAGING: Final = frozenset({LIMIT.name, CURSOR.name, CURSOR_IN_BODY.name, FIELDS.name})
_FILTERS: Final = {each.name: each for each in (*PLAIN, *SEARCH) if each.name not in _PAGING}
_BESIDE_TOKEN: Final = ("action", "filter", "run_ids", "limit", "changes", "note", "dry_run")
# Values of the fields that a null removes: those of a submission without them.
_REMOVED: Final[Mapping[str, Any]] = {"execution_mode": "sync", "priority": 0, "max_attempts": 1, "labels": {}}


class DryRun(NamedTuple):
    """Dry run to make. ``given``: the client's filter as JSON text, None when it named the runs.

    ``changes``: those of a replay; the note of a hold as ``{"note"}``.
    """

    action: BulkAction
    which: RunSearch
    given: str | None
    limit: int
    changes: dict[str, Any] | None


def bulk_request(settings: Settings, caller: Caller, body: Any) -> DryRun | str:
    """Return the dry run that a body asks for, or the token of the one to start. Raises Invalid, TooLarge."""
    asked = checked(StartBulk, body)
    given = asked.model_fields_set - {name for name in _BESIDE_TOKEN if getattr(asked, name) is None}
    if asked.token is not None:
        beside = sorted(given - {"token"} - ({"dry_run"} if asked.dry_run is False else set()))
        if beside:
            raise _invalid("token", f"Should come alone, without {', '.join(beside)}")
        return storable(asked.token)
    faults = list(_faults(asked))
    if faults or asked.action is None:
        raise Invalid(faults)
    action, changes = BulkAction(asked.action), None
    if action is BulkAction.REPLAY:
        changes = replay_changes(settings, asked.changes, ("body", "changes"))
        if asked.changes is not None and asked.changes.parameters is not None:
            # No schema of an agent is checked while the chunks are executed.
            check_parameters(asked.changes.parameters)
    elif action is BulkAction.HOLD and asked.note:
        changes = {"note": storable(asked.note)}
    if asked.run_ids is not None:
        which = RunSearch(run_ids=tuple(dict.fromkeys(map(storable, asked.run_ids))))
        filter_given = None
    else:
        filter_given = asked.filter or {}
        which = _search(filter_given, caller)
    text = None if filter_given is None else json.dumps(filter_given)
    if text is not None and len(text) > LONGEST_FILTER:
        raise _invalid("filter", f"Should be {LONGEST_FILTER} characters of JSON at most")
    return DryRun(action, which, text, asked.limit or MOST_RUNS, changes)


def replay_changes(settings: Settings, asked: ReplayChanges | None, at: Loc) -> dict[str, Any]:
    """Return the changes as ``Replay`` holds them; their parameters may be any object. Raises Invalid, TooLarge."""
    changes: dict[str, Any] = {}
    for name in asked.model_fields_set if asked is not None else ():
        value = getattr(asked, name)
        match name:
            case "parameters":
                changes[name] = _parameters(settings, value, at)
            case "scope":
                changes[name] = None if value is None else orjson.dumps(value).decode()
            case "additional_demands":
                changes[name] = asdict(demands_of(value))
            case "not_before":
                changes |= _earliest(value)
            case "run_timeout_seconds":
                changes[name] = value or default_run_timeout(settings)
            case "no_match_timeout_seconds":
                changes[name] = value or default_no_match_timeout(settings)
            case "agent_name":
                changes[name] = value or None
            case _:
                changes[name] = _REMOVED.get(name) if value is None else value
    return changes


def _parameters(settings: Settings, value: Any, at: Loc) -> str:
    if value is None:
        raise Invalid([Fault("parameters", (*at, "parameters"), "Should be an object: a run has parameters")])
    parameters = orjson.dumps(value)
    if len(parameters) > settings.parameters_bytes:
        raise TooLarge(f"parameters are larger than {settings.parameters_bytes} bytes")
    return parameters.decode()


def _earliest(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    return {"delay_seconds": float(value)} if isinstance(value, int | float) else {"not_before": value.isoformat()}


def _faults(asked: StartBulk) -> Iterator[Fault]:
    if asked.action is None:
        yield _fault("action", "Should be stop, delete, replay, hold or release; or give the token of a dry run alone")
    if (asked.filter is None) == (asked.run_ids is None):
        yield _fault("filter", "Should be given, or run_ids in its place, and not both")
    if asked.filter is not None and not asked.filter:
        yield _fault("filter", "Should name a filter of GET /runs; to act on all runs name every status")
    if asked.changes is not None and asked.action != "replay":
        yield _fault("changes", "Should be given with replay only")
    if asked.note is not None and asked.action != "hold":
        yield _fault("note", "Should be given with hold only")
    if asked.dry_run is not True:
        yield _fault("dry_run", "Should be true: send the token of its answer to act on the runs that it matched")


def _search(given: Mapping[str, Any], caller: Caller) -> RunSearch:
    """Return the search of a filter, by the definition of `GET /runs`. Raises Invalid."""
    faults: list[Fault] = []
    pairs: list[tuple[str, str]] = []
    for name, value in given.items():
        values = value if isinstance(value, list) else [value]
        parameter = _FILTERS.get(name)
        if parameter is None:
            faults.append(Fault("unknown_parameter", ("body", "filter"), f"Should be of {', '.join(sorted(_FILTERS))}"))
        elif not values or len(values) > MOST_VALUES:
            faults.append(_in_filter(name, f"Should have 1 to {MOST_VALUES} values"))
        elif len(values) > 1 and parameter.schema["type"] != "array":
            faults.append(_in_filter(name, "Should have one value"))
        else:
            pairs += [(name, _text(each)) for each in values]
    if any(not text for _, text in pairs):
        faults.append(_fault("filter", "Should have no empty values"))
    if faults:
        raise Invalid(faults[:20])
    try:
        return search_of(QueryParams(pairs), caller)
    except Invalid as refused:
        moved = [Fault(fault.type, ("body", "filter", *fault.loc[1:]), fault.msg) for fault in refused.faults]
        raise Invalid(moved) from None


def _text(value: str | int | bool) -> str:  # noqa: FBT001 -- a value of a filter
    return str(value).lower() if isinstance(value, bool) else str(value)


def _invalid(name: str, message: str) -> Invalid:
    return Invalid([_fault(name, message)])


def _fault(name: str, message: str) -> Fault:
    return Fault("bulk", ("body", name), message)


def _in_filter(name: str, message: str) -> Fault:
    return Fault("filter", ("body", "filter", name), message)
