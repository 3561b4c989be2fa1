from collections.abc import Iterable
from enum import StrEnum
from string import Template
from typing import Final

from sqlalchemy import TextClause, text

from models.core.statuses import (
    ENDED_BULKS,
    RUN_GROUPS,
    SESSION_GROUPS,
    BulkState,
    DeliveryState,
    FireKind,
    FireOutcome,
    RunStatus,
    SessionStatus,
)


def literals(words: Iterable[StrEnum]) -> str:
    return "(" + ", ".join(f"'{word}'" for word in words) + ")"


# Literals, not parameters: the planner uses a partial index only if it can prove the index's condition.
_STATUSES: Final = {
    **{status.name: f"'{status}'" for status in [*RunStatus, *SessionStatus]},
    **{name: literals(status for status in RunStatus if status in group) for name, group in RUN_GROUPS.items()},
    **{name: literals(status for status in SessionStatus if status in group) for name, group in SESSION_GROUPS.items()},
    **{f"BULK_{state.name}": f"'{state}'" for state in BulkState},
    **{f"FIRE_{outcome.name}": f"'{outcome}'" for outcome in FireOutcome},
    **{f"KIND_{kind.name}": f"'{kind}'" for kind in FireKind},
    **{f"DELIVERY_{state.name}": f"'{state}'" for state in DeliveryState},
    "BULK_ENDED": literals(state for state in BulkState if state in ENDED_BULKS),
}


def sql(template: str, **lists: str) -> TextClause:
    """Return the statement with ``$PENDING`` as a literal and ``$UNFINISHED`` as a list of literals for ``IN``.

    ``lists`` are further names: columns, for instance. Raises KeyError for an unknown name.
    """
    return text(Template(template).substitute(_STATUSES, **lists))
