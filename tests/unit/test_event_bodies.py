"""Events as they are taken in: complete, bounded, and never without what was small enough."""

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


def test_every_field_is_there_and_unknown_ones_are_not() -> None:
    """All present, null when unset; what is for us alone is not shown."""
    data = taken(body(event_key="k", claim_token="t", unknown=1))
    assert tuple(data) == EVENT_FIELDS
    assert data["content"] is None


def test_the_largest_fields_go_first_when_an_event_is_too_large() -> None:
    """Only as many as needed, each named; names and times stay."""
    data = taken(body(content="c" * 600, tool_output="o" * 900, error="e" * 10), 1000)
    assert (data["content"], data["tool_output"], data["error"]) == ("c" * 600, None, "e" * 10)
    assert data["truncated"] == ["tool_output"]
    assert taken(body(content="c" * 600, tool_output="o" * 900), 500)["truncated"] == ["content", "tool_output"]


def test_sender_names_fields_it_shortened() -> None:
    """Kept as `truncated`, beside what is left out here; names of no field are dropped."""
    assert taken(body(content="c", truncated=["content"]))["truncated"] == ["content"]
    assert "truncated" not in taken(body(truncated=["nothing", 5, ["content"]]))
    assert "truncated" not in taken(body(truncated="content"))
    given = body(content="c" * 600, tool_output="o" * 900, truncated=["content"])
    assert taken(given, 1000)["truncated"] == ["content", "tool_output"]


def test_each_event_has_its_own_uid_before_its_first_try() -> None:
    """A repeat of the batch is known as one."""
    first, _ = new_event(body(), "s", ADMIN, MiB, ("body",))
    second, _ = new_event(body(), "s", ADMIN, MiB, ("body",))
    assert first.event_uid != second.event_uid


@pytest.mark.parametrize("given", [None, 5, "text", [], {}, body(event_type=None), body(timestamp=None)])
def test_what_says_nothing_is_refused(given: Any) -> None:
    """Without type, session or time there is no event."""
    with pytest.raises(Invalid):
        taken(given)


def test_another_sessions_event_is_refused() -> None:
    """The URL says which session is meant."""
    with pytest.raises(BadRequest):
        taken(body(session_id="other"))


@pytest.mark.parametrize("timestamp", ["yesterday", 5, {"a": 1}, "\x00"])
def test_a_timestamp_is_kept_as_sent(timestamp: Any) -> None:
    """Whatever it is."""
    assert taken(body(timestamp=timestamp))["timestamp"] == timestamp
