"""Compare the types and requests of the public client with the models of app/schemas."""

from datetime import UTC, datetime

from app.schemas.runners import RegisterRunner
from app.schemas.runs import SubmitRun
from coordinator_client import operator_types, types
from coordinator_client.requests import Identity, RunRequest
from scripts.client_types import LATER, generated


def test_types_of_client_are_those_of_the_models() -> None:
    """Compare coordinator_client/types.py with the output of `.venv/bin/python -m scripts.client_types`."""
    for file, text in generated().items():
        assert file.read_text() == text
    for name, _, field in (later.partition(".") for later in LATER):
        assert field in getattr(types if hasattr(types, name) else operator_types, name).__optional_keys__


def test_run_request_has_every_field_of_a_submission() -> None:
    request = RunRequest(
        parameters={"prompt": "x"},
        type="resume_session",
        session_id="s",
        agent_name="a",
        project_dir="/p",
        parent_session_id="q",
        scope={"k": "v"},
        execution_mode="async_callback",
        additional_demands={"hostname": "h", "tags": ["g"]},
        affinity=False,
        priority=1,
        not_before=datetime(2026, 1, 1, tzinfo=UTC),
        max_attempts=2,
        run_timeout_seconds=3,
        no_match_timeout_seconds=4,
        labels={"k": "v"},
        retry={"max_attempts": 2, "on": [75, "TimeoutError"]},
    )
    body = request.body()
    SubmitRun.model_validate(body, extra="forbid")
    assert set(body) == set(SubmitRun.model_fields)


def test_identity_has_every_field_of_a_registration() -> None:
    """Leave out `agents`: this client provides none."""
    identity = Identity(
        hostname="h",
        project_dir="/p",
        executor_profile="e",
        executor_type="autonomous",
        command="c",
        tags=("g",),
        require_matching_tags=True,
        capacity=1,
        instance_id="i",
    )
    body = identity.body()
    RegisterRunner.model_validate(body, extra="forbid")
    assert set(body) | {"agents"} == set(RegisterRunner.model_fields)
