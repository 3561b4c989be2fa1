"""Check the requests that the client and the runner send."""

from datetime import UTC, datetime, timedelta, timezone

from coordinator_client.requests import Identity, RunRequest


def test_submission_holds_given_fields_only() -> None:
    """Leave defaults to the coordinator."""
    assert RunRequest(parameters={"prompt": "x"}).body() == {"type": "start_session", "parameters": {"prompt": "x"}}
    full = RunRequest(
        type="resume_session", session_id="s", parameters={}, priority=0, not_before=1.5, labels={"a": "b"}
    )
    assert full.body() == {
        "type": "resume_session",
        "session_id": "s",
        "parameters": {},
        "priority": 0,
        "not_before": 1.5,
        "labels": {"a": "b"},
    }
    assert RunRequest(parameters={}, affinity=False).body()["affinity"] is False


def test_time_is_sent_with_its_offset() -> None:
    """Add this machine's offset to a time without one."""
    moment = datetime(2026, 5, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    sent = RunRequest(parameters={}, not_before=moment).body()["not_before"]
    assert datetime.fromisoformat(sent) == moment
    naive = datetime(2026, 5, 1, 12)  # noqa: DTZ001 - the case in question
    sent = RunRequest(parameters={}, not_before=naive).body()["not_before"]
    assert datetime.fromisoformat(sent) == naive.astimezone(UTC)


def test_identity_holds_capacity_and_instance_only_if_given() -> None:
    """Deployed runners have neither."""
    plain = Identity(hostname="h", project_dir="/p", executor_profile="e", executor_type="autonomous", command="c")
    assert plain.body() == {
        "hostname": "h",
        "project_dir": "/p",
        "executor_profile": "e",
        "executor": {"type": "autonomous", "command": "c"},
        "tags": [],
        "require_matching_tags": False,
    }
