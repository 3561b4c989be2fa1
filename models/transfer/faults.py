from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_LONGEST_SHOWN: Final = 80


class Reason(StrEnum):
    """Reason for which rows of a file are not imported; part of the report, so names stay."""

    BAD_ID = "bad_id"
    MISSING_VALUE = "missing_value"
    NOT_TEXT = "not_text"
    NOT_UTF8 = "not_utf8"
    NUL = "nul"
    TOO_LONG = "too_long"
    TOO_LARGE = "too_large"
    BAD_TIME = "bad_time"
    BAD_JSON = "bad_json"
    BAD_DEMANDS = "bad_demands"
    UNKNOWN_STATUS = "unknown_status"
    UNKNOWN_TYPE = "unknown_type"
    PARENT_CYCLE = "parent_cycle"
    NO_SESSION = "no_session"
    ID_TAKEN = "id_taken"
    CHANGED_SINCE_IMPORT = "changed_since_import"
    UNUSABLE_ENTRY = "unusable_entry"
    REGISTRY_FULL = "registry_full"


MEANINGS: Final = {
    Reason.BAD_ID: "an id is not 1 to 128 of A-Z a-z 0-9 _ . : -",
    Reason.MISSING_VALUE: "a column that needs a value has none",
    Reason.NOT_TEXT: "a column of texts holds bytes",
    Reason.NOT_UTF8: "a text is not UTF-8, or a surrogate has no other half",
    Reason.NUL: "a text holds the character NUL",
    Reason.TOO_LONG: "a text is longer than the API accepts",
    Reason.TOO_LARGE: "parameters or an event are larger than a setting allows",
    Reason.BAD_TIME: "a time is not in ISO 8601",
    Reason.BAD_JSON: "a column of JSON holds something else",
    Reason.BAD_DEMANDS: "demands are not texts and a list of tags",
    Reason.UNKNOWN_STATUS: "a status is unknown",
    Reason.UNKNOWN_TYPE: "a run's type or execution mode is unknown",
    Reason.PARENT_CYCLE: "a session is below itself",
    Reason.NO_SESSION: "rows belong to a session that the file does not have",
    Reason.ID_TAKEN: "another session or run has the id here",
    Reason.CHANGED_SINCE_IMPORT: "the session was imported before, and the file's rows have changed since",
    Reason.UNUSABLE_ENTRY: "the files of an agent, capability, script or MCP server make no entry that the API accepts",
    Reason.REGISTRY_FULL: "a registry would hold more than it may, so no entry of the directory came",
}


class RowFault(Exception):
    """A row of the file cannot be stored, and so its session is not imported."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Refusal:
    """Rows that were not imported: a session, or ``rows`` runs or events without a session; ``what`` says which."""

    reason: Reason
    what: str
    id: str
    detail: str
    rows: int = 1


def shown(value: object) -> str:
    """Return a value of a file for a report: escaped, and cut."""
    text = ascii(value)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."
