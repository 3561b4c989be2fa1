"""Name the row classes that a new column must be decided for; their fields are the column lists of the statements."""

from dataclasses import fields

import pytest
from sqlalchemy import Table

from models.schema.columns import array_rows, names_of
from models.schema.tables import events, runs, sessions
from models.state.events_outbox import EventRow
from models.state.runs import TIMEOUT_AT, Run
from models.state.sessions import Session

LEFT_OUT = [
    (
        Run,
        runs,
        {
            "session_seq",
            "profile_id",
            "ready",
            "run_timeout_seconds",
            "no_match_timeout_seconds",
            "registration",
            "claimed_by",
            "claimed_by_registration",
            "former_holders",
            "not_for",
            "fruitless_claims",
            "unheld_beats",
            "stop_cause",
            "ended_by_us",
            "last_ended_token",
            "last_ended_runner",
            "last_ended_outcome",
            "delivered_at",
            "match_deadline_at",
            "claim_deadline_at",
            "run_deadline_at",
            "gaps_counted_at",
            "unmatched_since",
        },
    ),
    (
        Session,
        sessions,
        {
            "incarnation",
            "last_outcome",
            "next_run",
            "runner_id",
            "registration",
            "bound_token",
            "scope",
            "first_event_id",
            "last_sign_at",
        },
    ),
    (EventRow, events, {"id", "feed_pos", "created_at"}),
]


@pytest.mark.parametrize(("kind", "table", "left_out"), LEFT_OUT)
def test_every_column_is_a_field_or_left_out(kind: type, table: Table, left_out: set[str]) -> None:
    columns, held = set(table.c.keys()), {field.name for field in fields(kind)} - {TIMEOUT_AT}

    assert held <= columns
    assert columns - held == left_out, f"make the column a field of {kind.__name__}, or leave it out here"


def test_json_columns_are_read_and_written_as_text() -> None:
    names = ["run_id", "scope", "labels", "priority"]

    assert names_of("r", [runs.c.run_id, runs.c.scope]) == "r.run_id, CAST(r.scope AS text)"
    assert array_rows("n", runs, names) == {
        "columns": "run_id, scope, labels, priority",
        "arrays": "CAST(:run_id AS text[]), CAST(:scope AS text[]), CAST(:labels AS text[]), CAST(:priority AS smallint[])",
        "values": "n.run_id, CAST(n.scope AS json), CAST(n.labels AS jsonb), n.priority",
    }
