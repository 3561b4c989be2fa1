"""Templates: the run that a schedule submits at each of its times, kept as the fields of a submission."""

import hashlib
import json
from dataclasses import asdict, replace
from datetime import datetime
from typing import Final

from models.claims.matching import Demands
from models.core.callers import Caller
from models.core.ids import new_id
from models.core.retries import read_policy
from models.core.statuses import FireKind, RunType
from models.runs.submission import FIRE_LABEL, SCHEDULE_LABEL, NewRun
from models.schedules.rows import Schedule
from models.state.runs import iso

FIRE_AT: Final = "{fire_at}"
_FIELDS: Final = frozenset(NewRun.__dataclass_fields__)
_OF_EACH_FIRE: Final = frozenset(
    {"run_id", "new_session_id", "caller", "idempotency_key", "body_hash", "replay_of", "replayed_owner", "traceparent"}
)


def write_template(run: NewRun, satisfied_schema: str | None) -> str:
    """Return the run as JSON text, without what each fire has of its own."""
    given = asdict(replace(run, satisfied_schema=satisfied_schema, caller=Caller()))
    return json.dumps({name: value for name, value in given.items() if name not in _OF_EACH_FIRE}, default=str)


def fire_text(moment: datetime) -> str:
    """Return a nominal time as it stands in session ids: ``2026-12-01T09:00:00Z``."""
    return (iso(moment) or "").replace(".000000", "").replace("+00:00", "Z")


def run_of_fire(schedule: Schedule, moment: datetime, kind: str) -> NewRun:
    """Return the submission of one fire. Raises KeyError for a text that is no template."""
    values = json.loads(schedule.template)
    values["additional_demands"] = Demands(
        **{**values["additional_demands"], "tags": tuple(values["additional_demands"]["tags"])}
    )
    if (retry := values.get("retry")) is not None:
        values["retry"] = read_policy(json.dumps(retry))
    text = fire_text(moment)
    session_id = values["session_id"]
    values |= {
        "type": RunType(values["type"]),
        "session_id": None if session_id is None else session_id.replace(FIRE_AT, text),
        "labels": {**values["labels"], SCHEDULE_LABEL: schedule.schedule_id, FIRE_LABEL: text},
        "not_before": None,
    }
    suffix = "" if kind == FireKind.DUE else f":{kind}"
    # A worker of the last release knows fewer fields.
    values = {name: value for name, value in values.items() if name in _FIELDS}
    return NewRun(
        run_id=new_id("run_"),
        new_session_id=new_id("ses_"),
        caller=schedule.caller,
        # By the number, too: one of the same id that was deleted had keys of its own.
        idempotency_key=f"schedule:{schedule.schedule_id}:{schedule.schedule_no}:{text}{suffix}",
        body_hash=hashlib.sha256(f"schedule {schedule.schedule_no}".encode()).hexdigest(),
        **values,
    )
