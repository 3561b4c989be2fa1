from typing import Any, Final

from app.schemas.problems import Problem

Responses = dict[int | str, dict[str, Any]]
TEXT: Final = {"type": "string"}


def answer(description: str, model: Any) -> dict[str, Any]:
    return {"description": description, "model": model}


def list_answer(description: str, model: Any) -> dict[str, Any]:
    header = {"description": "`feed_cursor` of the list: position of its snapshot in the feed", "schema": TEXT}
    return answer(description, model) | {"headers": {"Feed-Cursor": header}}


def problem(description: str, detail: Any) -> dict[str, Any]:
    content = {"application/json": {"example": {"detail": detail}}}
    return {"description": description, "model": Problem, "content": content}


STALE: Final = {
    "error": "stale_claim",
    "status": "running",
    "message": "The run is not held by this claim any more; nothing was changed",
}
AWAY: Final[Responses] = {503: problem("Postgres is away; see `Retry-After`", "Service temporarily unavailable")}
INVALID: Final[Responses] = {
    422: problem("Invalid request", [{"type": "missing", "loc": ["body", "type"], "msg": "Field required"}])
}
TOO_LARGE: Final[Responses] = {413: problem("Body over the limit", "Request body is larger than 1048576 bytes")}
BAD_CURSOR: Final[Responses] = {
    400: problem("The cursor cannot be used", "The cursor is not one that was given out here")
}
NO_RUN: Final[Responses] = {404: problem("No such run", "Run not found")}
NO_SESSION: Final[Responses] = {404: problem("No such session", "Session not found")}
NO_RUNNER: Final[Responses] = {
    401: problem("Unknown runner, or one that has left or was told to leave", "Runner not registered")
}
