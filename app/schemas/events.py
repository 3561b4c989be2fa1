from typing import Annotated, Any

from pydantic import Field

from app.schemas.base import Cursor, Described, FeedCursor, MayLack, NextCursor, RunId, SessionId
from app.schemas.problems import ItemAnswer

LONGEST_TYPE = 64
LONGEST_KEY = 64

EventType = Annotated[
    str,
    Field(description=f"`run_start`, `message`, `result` ... or any text up to {LONGEST_TYPE}", examples=["message"]),
]
Content = Annotated[Any, Field(examples=[[{"type": "text", "text": "Hello"}]])]
Truncated = Annotated[
    MayLack[list[str]], Field(description="Names of fields that the sender shortened or the coordinator left out")
]


class NewEvent(Described):
    """Event to append. Contents are kept as they are, whatever their types."""

    event_type: EventType
    session_id: Annotated[SessionId, Field(description="As in the URL")]
    timestamp: Annotated[Any, Field(description="Kept as sent", examples=["2026-01-01T12:00:00Z"])]
    tool_name: Any = None
    tool_input: Any = None
    tool_output: Any = None
    error: Any = None
    exit_code: Any = None
    reason: Any = None
    role: Annotated[Any, Field(examples=["assistant"])] = None
    content: Content = None
    result_text: Any = None
    result_data: Any = None
    truncated: Truncated = None
    event_key: Annotated[
        MayLack[str],
        Field(description=f"Up to {LONGEST_KEY} characters; stored once per session, so a retry is harmless"),
    ] = None
    claim_token: Annotated[
        MayLack[str], Field(description="The event belongs to the run of this claim; a stale one is refused (409)")
    ] = None
    run_id: Annotated[
        MayLack[str],
        Field(description="Without claim_token: the run of the session it belongs to; else the one in hand"),
    ] = None


class Event(Described):
    """Event of a session, as lists show it; the other fields are as the sender sent them, null where it sent none."""

    id: Annotated[int, Field(examples=[17])]
    feed_cursor: Annotated[Cursor | None, Field(description="Position in the feed; null until it is numbered")]
    run_id: Annotated[RunId | None, Field(description="Null for an event that belongs to none of the session's runs")]
    event_type: EventType
    session_id: SessionId
    timestamp: Annotated[Any, Field(examples=["2026-01-01T12:00:00Z"])]
    tool_name: Any
    tool_input: Any
    tool_output: Any
    error: Any
    exit_code: Any
    reason: Any
    role: Annotated[Any, Field(examples=["assistant"])]
    content: Content
    result_text: Any
    result_data: Any
    truncated: Truncated = None


class EventPage(Described):
    """Page of events, in feed order."""

    events: list[Event]
    feed_cursor: FeedCursor = None
    next_cursor: NextCursor = None


class EventsStored(Described):
    """Answer to appended events; for a list with one result each, in order."""

    ok: Annotated[bool, Field(description="False when an event of a list was refused", examples=[True])]
    results: MayLack[list[ItemAnswer]] = None
