"""Name the row classes that a new column must be decided for; their fields are the column lists of the statements."""

from collections.abc import Iterable

import pytest
from sqlalchemy import Table

from models.schema.columns import array_rows, names_of
from models.schema.tables import events, runs, sessions
from models.state.events_outbox import EVENT_COLUMNS
from models.state.locked_rows import LOCKED_RUN_COLUMNS, LOCKED_SESSION_COLUMNS
from models.state.runs import RUN_COLUMNS, TIMEOUT_AT
from models.state.sessions import SESSION_COLUMNS

LEFT_OUT = [
    (
        "Run",
        [column.key for column in RUN_COLUMNS if column.key != TIMEOUT_AT],
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
            "retry",
        },
    ),
    (
        "Session",
        [column.key for column in SESSION_COLUMNS],
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
    (
        "LockedRun",
        [column.key for column in LOCKED_RUN_COLUMNS],
        runs,
        {
            "agent_name",
            "parameters",
            "project_dir",
            "scope",
            "demands",
            "labels",
            "profile_id",
            "priority",
            "no_match_timeout_seconds",
            "claim_poll_id",
            "created_at",
            "not_before",
            "claimed_at",
            "match_deadline_at",
            "gaps_counted_at",
            "unmatched_since",
            "replay_of",
        },
    ),
    (
        "LockedSession",
        [column.key for column in LOCKED_SESSION_COLUMNS],
        sessions,
        {
            "incarnation",
            "last_outcome",
            "executor_session_id",
            "bound_token",
            "first_event_id",
            "created_at",
            "last_resumed_at",
            "last_sign_at",
        },
    ),
    ("EventRow", EVENT_COLUMNS, events, {"id", "feed_pos", "created_at"}),
]


@pytest.mark.parametrize(("row_class", "held", "table", "left_out"), LEFT_OUT, ids=[case[0] for case in LEFT_OUT])
def test_every_column_is_a_field_or_left_out(
    row_class: str, held: Iterable[str], table: Table, left_out: set[str]
) -> None:
    columns = set(table.c.keys())

    assert set(held) <= columns
    assert columns - set(held) == left_out, f"make the column a field of {row_class}, or leave it out here"


def test_json_columns_are_read_and_written_as_text() -> None:
    names = ["run_id", "scope", "labels", "priority"]

    assert names_of("r", [runs.c.run_id, runs.c.scope]) == "r.run_id, CAST(r.scope AS text)"
    assert array_rows("n", runs, names) == {
        "columns": "run_id, scope, labels, priority",
        "arrays": "CAST(:run_id AS text[]), CAST(:scope AS text[]), CAST(:labels AS text[]), CAST(:priority AS smallint[])",
        "values": "n.run_id, CAST(n.scope AS json), CAST(n.labels AS jsonb), n.priority",
    }
