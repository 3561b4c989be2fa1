"""Check how a submission's body becomes the run to insert."""

from datetime import UTC, datetime
from typing import Any

import pytest

from app.http.bodies import Invalid, TooLarge
from app.http.problems import BadRequest
from app.inputs.submission import idempotency_key, new_run
from models.claims.matching import Demands
from models.core.callers import ADMIN
from models.runs.submission import NewRun
from runtime.settings import Settings

SETTINGS = Settings()


def run_of(settings: Settings = SETTINGS, key: str | None = None, **fields: Any) -> NewRun:
    body = {"type": "start_session", "parameters": {"prompt": "x"}} | fields
    return new_run(settings, ADMIN, body, key=key)[0]


def test_ids_are_made_before_first_try() -> None:
    """Give each run its own id, in the order of the calls."""
    first, second = run_of(), run_of()
    assert first.run_id < second.run_id
    assert first.new_session_id < second.new_session_id


def test_start_may_be_delayed_by_time_or_until_moment() -> None:
    """Keep seconds as seconds, since they count from the database's now."""
    assert (run_of(not_before=5).delay_seconds, run_of(not_before=5).not_before) == (5, None)
    moment = run_of(not_before="2030-01-01T00:00:00+01:00")
    assert (moment.delay_seconds, moment.not_before) == (None, datetime(2029, 12, 31, 23, tzinfo=UTC))


def test_empty_demands_ask_for_nothing() -> None:
    """Treat an empty text as no hostname."""
    assert run_of(additional_demands={"hostname": "", "tags": []}).additional_demands == Demands()
    assert run_of(additional_demands={"hostname": "h", "tags": ["t"]}).additional_demands == Demands("h", tags=("t",))


def test_resume_may_drop_affinity_of_its_session() -> None:
    """Keep it unless the request says `"affinity": false`."""
    assert run_of(type="resume_session", session_id="s").affinity
    assert not run_of(type="resume_session", session_id="s", affinity=False).affinity
    with pytest.raises(Invalid):
        run_of(type="resume_session", session_id="s", affinity="false")


def test_same_body_in_another_order_has_same_hash() -> None:
    """Compare bodies of one key as parsed JSON."""
    a = run_of(key="k", scope={"a": 1, "b": {"c": 2, "d": 3}})
    b = run_of(key="k", scope={"b": {"d": 3, "c": 2}, "a": 1})
    assert a.body_hash == b.body_hash
    assert a.body_hash != run_of(key="k", scope={"a": 1}).body_hash
    assert run_of().body_hash is None


def test_defaults_come_from_settings() -> None:
    settings = Settings(no_match_timeout_seconds=7, default_run_timeout_seconds=9)
    assert (run_of(settings).no_match_timeout_seconds, run_of(settings).run_timeout_seconds) == (7, 9)
    own = run_of(settings, no_match_timeout_seconds=1, run_timeout_seconds=2)
    assert (own.no_match_timeout_seconds, own.run_timeout_seconds) == (1, 2)
    assert run_of().run_timeout_seconds is None


def test_invalid_submissions_are_refused() -> None:
    """Refuse a resume without session, an invalid name, oversized parameters."""
    with pytest.raises(BadRequest):
        run_of(type="resume_session")
    with pytest.raises(Invalid):
        run_of(session_id="a b")
    assert run_of(type="resume_session", session_id="a b").session_id == "a b"
    with pytest.raises(TooLarge):
        run_of(parameters={"prompt": "x" * 300_000})


def test_idempotency_key_is_printable_and_bounded() -> None:
    """Treat an empty key as absent."""
    assert idempotency_key("", ("header",)) is None
    assert idempotency_key("k", ("header",)) == "k"
    for bad in ("k" * 256, "a\x00", "a\nb"):
        with pytest.raises(Invalid):
            idempotency_key(bad, ("header",))
