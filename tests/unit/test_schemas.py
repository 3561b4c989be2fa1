"""Check which requests the schemas accept and refuse, and that refusals echo nothing."""

from datetime import UTC, datetime
from typing import Any

import pytest

from app.http.bodies import Invalid, checked
from app.schemas.runners import RegisterRunner
from app.schemas.runs import SubmitRun

RUN: dict[str, Any] = {"type": "start_session", "parameters": {"prompt": "x"}}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "stop_session"),
        ("parameters", "text"),
        ("priority", 101),
        ("priority", "5"),
        ("priority", True),
        ("max_attempts", 0),
        ("max_attempts", 101),
        ("run_timeout_seconds", 0),
        ("run_timeout_seconds", 604_801),
        ("no_match_timeout_seconds", 1.5),
        ("execution_mode", "async"),
        ("not_before", "tomorrow"),
        ("not_before", -1),
        ("not_before", "9999-12-31T23:59:59-23:59"),
        ("scope", []),
        ("labels", {"k" * 65: "v"}),
        ("labels", {"k": "v" * 129}),
        ("labels", {str(number): "v" for number in range(33)}),
        ("additional_demands", {"tags": ["t"] * 65}),
        ("additional_demands", {"tags": ["t" * 129]}),
        ("additional_demands", {"tags": "text"}),
        ("additional_demands", {"hostname": 5}),
        ("agent_name", "a" * 1025),
        ("project_dir", {}),
    ],
)
def test_field_out_of_bounds_is_refused_by_name(field: str, value: Any) -> None:
    """Check each bound of PROTOCOL's table."""
    with pytest.raises(Invalid) as refused:
        checked(SubmitRun, RUN | {field: value})
    assert all(fault.loc[:2] == ("body", field) for fault in refused.value.faults)


def test_unknown_fields_are_ignored_and_defaults_hold() -> None:
    run = checked(SubmitRun, RUN | {"unknown": 1})
    assert (run.execution_mode, run.priority, run.max_attempts, run.not_before) == ("sync", 0, 1, None)


@pytest.mark.parametrize("field", ["session_id", "parent_session_id"])
def test_empty_id_is_absent(field: str) -> None:
    """Deployed clients send empty texts for ids they do not have."""
    assert getattr(checked(SubmitRun, RUN | {field: ""}), field) is None


def test_not_before_is_moment_or_seconds() -> None:
    """Refuse a timestamp without offset."""
    assert checked(SubmitRun, RUN | {"not_before": 90}).not_before == 90
    moment = checked(SubmitRun, RUN | {"not_before": "2026-01-01T10:00:00Z"}).not_before
    assert moment == datetime(2026, 1, 1, 10, tzinfo=UTC)
    with pytest.raises(Invalid):
        checked(SubmitRun, RUN | {"not_before": "2026-01-01T10:00:00"})


def test_executor_properties_beyond_type_and_command_are_kept() -> None:
    body = {"hostname": "h", "project_dir": "/p", "executor_profile": "e", "executor": {"type": "t", "model": "m"}}
    executor = checked(RegisterRunner, body).executor
    assert executor is not None
    assert executor.model_dump(exclude_unset=True) == {"type": "t", "model": "m"}
