"""Define the answers and filters of the feed and its tickets, with examples, for /openapi.json."""

from collections.abc import Mapping
from typing import Final

from app.openapi.answers import AWAY, INVALID
from app.openapi.shapes import Answers, answer, error

TICKET: Final[Answers] = {
    201: answer("Valid for one stream, within a minute", {"ticket": "tkt_c2VjcmV0", "expires_in": 60}),
    413: error("Body over the limit", "Request body is larger than 1048576 bytes"),
    422: error("Invalid request", [{"type": "enum", "loc": ["query", "types"], "msg": "Should be some of event"}]),
    **AWAY,
}
TICKET_FILTERS: Final[Mapping[str, tuple[str, bool, str]]] = {
    "session_id": ("string", False, "Only this session"),
    "run_id": ("string", False, "Only this run"),
    "created_by": ("string", False, "Only sessions of this owner"),
    "types": ("string", False, "Names of events, comma-separated"),
}
FEED: Final[Answers] = {
    200: {
        "description": "An endless stream of messages, each with `id:`, `event:` and `data:` (one JSON object)",
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": "retry: 1830\n\nid: v1.5f0c2d9a7b31~init.41\n\nid: v1.5f0c2d9a7b31.41\nevent: init\n"
                'data: {"sessions":[]}\n\nid: v1.5f0c2d9a7b31.42\nevent: session_deleted\n'
                'data: {"session_id":"tour-1","runs_deleted":1}\n\n',
            }
        },
    },
    422: INVALID[422],
}
FEED_FILTERS: Final = (
    ("session_id", "string", "Only events of this session"),
    ("run_id", "string", "Only events of this run"),
    ("created_by", "string", "Only sessions of this owner; while authentication is off all match"),
    (
        "types",
        "string",
        "Only these kinds, comma-separated; `run_updated`, and for admins `audit`, are sent only when named",
    ),
    ("include_init", "boolean", "Begin with a snapshot of all sessions, unless the stream is resumed (default: true)"),
    ("last_event_id", "string", "Resume after this cursor; the header `Last-Event-ID` wins"),
)
