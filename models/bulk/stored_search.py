import json
from dataclasses import fields
from datetime import datetime
from typing import Any, Final

from models.runs.search import RunSearch
from models.runs.search_sql import Order

_MOMENTS: Final = frozenset({"created_after", "created_before", "ended_after", "ended_before"})
_TUPLES: Final = frozenset({"statuses", "not_statuses", "run_ids"})
_DEFAULTS: Final = RunSearch()


def write_search(which: RunSearch) -> str:
    """Return the filters as JSON text, without those that are not set."""
    given = {field.name: getattr(which, field.name) for field in fields(which)}
    changed = {name: value for name, value in given.items() if value != getattr(_DEFAULTS, name)}
    return json.dumps({name: _plain(value) for name, value in changed.items()})


def read_search(text: str) -> RunSearch:
    """Return the filters of a text that ``write_search`` made. Raises TypeError for a filter of a later version."""
    return RunSearch(**{name: _rich(name, value) for name, value in json.loads(text).items()})


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _rich(name: str, value: Any) -> Any:
    if name in _MOMENTS:
        return datetime.fromisoformat(value)
    if name in _TUPLES:
        return tuple(value)
    return Order(value) if name == "order" else value
