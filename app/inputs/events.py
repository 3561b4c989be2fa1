from collections.abc import Mapping
from typing import Any, Final

from app.http.bodies import Fault, Invalid, Loc
from app.http.lenient import encode
from app.http.problems import BadRequest
from app.schemas.events import LONGEST_KEY, LONGEST_TYPE
from models.core.callers import Caller
from models.core.storable_text import storable
from models.feed.append import NewEvent
from models.state.events_outbox import EVENT_FIELDS

REQUIRED: Final = ("event_type", "session_id", "timestamp")


def new_event(body: Any, session_id: str, caller: Caller, most_bytes: int, at: Loc) -> tuple[NewEvent, int]:
    """Return the event of a parsed body, and its size in bytes.

    Over ``most_bytes`` its largest fields are left out and named in ``truncated``, beside those that the sender names
    there since it shortened them itself. Raises Invalid when its type, session or time is missing; BadRequest when its
    session is not the URL's.
    """
    if not isinstance(body, dict):
        raise Invalid([Fault("dict_type", at, "Should be an object")])
    missing = [name for name in REQUIRED if body.get(name) is None]
    if missing:
        raise Invalid([Fault("missing", (*at, name), "Field required") for name in missing])
    event_type = _name(body["event_type"], (*at, "event_type"), LONGEST_TYPE)
    if body["session_id"] != session_id:
        raise BadRequest("Event session_id must match URL session_id")
    event = {name: body.get(name) for name in EVENT_FIELDS}
    event["event_type"] = event_type
    if named := _truncated(body.get("truncated")):
        event["truncated"] = named
    frame = _within(event, most_bytes)
    key, token, run_id = body.get("event_key"), body.get("claim_token"), body.get("run_id")
    stored = NewEvent(
        session_id=storable(session_id),
        caller=caller,
        event_type=event_type,
        frame=frame.decode(),
        event_key=None if key is None or key == "" else _name(key, (*at, "event_key"), LONGEST_KEY),
        claim_token=storable(token) if isinstance(token, str) and token else None,
        run_id=storable(run_id) if isinstance(run_id, str) and run_id else None,
    )
    return stored, len(frame)


def _name(value: Any, loc: Loc, longest: int) -> str:
    if not isinstance(value, str):
        raise Invalid([Fault("string_type", loc, "Should be text")])
    if not value or len(value) > longest:
        raise Invalid([Fault("string_length", loc, f"Should be 1 to {longest} characters")])
    return storable(value)


def _truncated(given: Any) -> list[str]:
    return (
        sorted({name for name in given if isinstance(name, str) and name in EVENT_FIELDS})
        if isinstance(given, list)
        else []
    )


def _within(event: Mapping[str, Any], most_bytes: int) -> bytes:
    shown = dict(event)
    frame = encode({"data": shown})
    if len(frame) <= most_bytes:
        return frame
    sizes = {name: len(encode(value)) for name, value in shown.items() if name not in (*REQUIRED, "truncated")}
    left = len(frame)
    truncated = list(event.get("truncated", ()))
    for name in sorted(sizes, key=lambda field: sizes[field], reverse=True):
        if left <= most_bytes:
            break
        shown[name] = None
        truncated.append(name)
        left -= sizes[name]
    shown["truncated"] = sorted(set(truncated))
    return encode({"data": shown})
