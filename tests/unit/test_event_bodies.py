"""Check that events are stored complete and within bounds, and lose no field that was small enough."""

from typing import Any

import orjson
import pytest

from app.http.bodies import Invalid
from app.http.problems import BadRequest
from app.inputs.events import new_event
from models.core.callers import ADMIN
from models.state.events_outbox import EVENT_FIELDS

MiB = 1024**2


def body(**fields: Any) -> dict[str, Any]:
    return {"event_type": "message", "session_id": "s", "timestamp": "t"} | fields


def taken(given: Any, most: int = MiB) -> dict[str, Any]:
    event, size = new_event(given, "s", ADMIN, most, ("body",))
    assert size == len(event.frame.encode())
    frame: dict[str, Any] = orjson.loads(event.frame)
    data: dict[str, Any] = frame["data"]
    return data


def test_every_known_field_is_present_and_unknown_ones_are_dropped() -> None:
    """Set unset fields to null; show no internal fields."""
    data = taken(body(event_key="k", claim_token="t", unknown=1))
    assert tuple(data) == EVENT_FIELDS
    assert data["content"] is None


def test_oversized_event_loses_its_largest_fields_first() -> None:
    """Drop only as many as needed and name each; keep names and times."""
    data = taken(body(content="c" * 600, tool_output="o" * 900, error="e" * 10), 1000)
    assert (data["content"], data["tool_output"], data["error"]) == ("c" * 600, None, "e" * 10)
    assert data["truncated"] == ["tool_output"]
    assert taken(body(content="c" * 600, tool_output="o" * 900), 500)["truncated"] == ["content", "tool_output"]


def test_sender_may_name_fields_it_shortened() -> None:
    """Keep them in `truncated` beside the fields dropped here; ignore names of no field."""
    assert taken(body(content="c", truncated=["content"]))["truncated"] == ["content"]
    assert "truncated" not in taken(body(truncated=["nothing", 5, ["content"]]))
    assert "truncated" not in taken(body(truncated="content"))
    given = body(content="c" * 600, tool_output="o" * 900, truncated=["content"])
    assert taken(given, 1000)["truncated"] == ["content", "tool_output"]


def test_each_event_has_its_own_uid_before_its_first_try() -> None:
    """A repeat of the batch is recognised by these uids."""
    first, _ = new_event(body(), "s", ADMIN, MiB, ("body",))
    second, _ = new_event(body(), "s", ADMIN, MiB, ("body",))
    assert first.event_uid != second.event_uid


@pytest.mark.parametrize("given", [None, 5, "text", [], {}, body(event_type=None), body(timestamp=None)])
def test_event_without_type_session_or_time_is_refused(given: Any) -> None:
    with pytest.raises(Invalid):
        taken(given)


def test_event_of_another_session_than_the_url_is_refused() -> None:
    with pytest.raises(BadRequest):
        taken(body(session_id="other"))


@pytest.mark.parametrize("timestamp", ["yesterday", 5, {"a": 1}, "\x00"])
def test_timestamp_is_kept_as_sent(timestamp: Any) -> None:
    assert taken(body(timestamp=timestamp))["timestamp"] == timestamp
