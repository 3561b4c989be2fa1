from collections.abc import Iterator, Sequence
from typing import Any, Final

from coordinator_client.transport import encode
from coordinator_client.types import NewEvent

# Common proxies take bodies of 1 MiB. A request is larger only if it holds a single larger event.
MOST_REQUEST_BYTES: Final = 900 * 1024
# A request this small is repeated unchanged when it is refused as too large.
LEAST_REQUEST_BYTES: Final = 2 * 1024
# Bytes reserved for the notice at the end of a text that is cut.
_MARK_BYTES: Final = 200
_NAMING: Final = frozenset({"event_type", "session_id", "timestamp", "event_key", "claim_token", "run_id", "role"})


def size_of(events: Sequence[NewEvent]) -> int:
    return len(encode(list(events)))


def in_requests(events: Sequence[NewEvent], most: int) -> Iterator[list[NewEvent]]:
    batch: list[NewEvent] = []
    size = 2
    for event in events:
        weight = len(encode(event)) + 1
        if batch and size + weight > most:
            yield batch
            batch, size = [], 2
        batch.append(event)
        size += weight
    if batch:
        yield batch


def shortened(event: NewEvent, most: int) -> NewEvent:
    """Return the event in at most `most` bytes where possible: texts cut, other fields removed, each named in
    `truncated`.
    """
    fields: dict[str, Any] = dict(event)
    truncated = {str(name) for name in fields.pop("truncated", None) or ()}
    sizes = {name: len(encode(value)) for name, value in fields.items() if name not in _NAMING and value is not None}
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        excess = len(encode(fields)) + _MARK_BYTES - most
        if excess <= 0:
            break
        fields[name] = _cut(fields[name], sizes[name] - excess)
        truncated.add(name)
    return {**fields, "truncated": sorted(truncated)}  # type: ignore[typeddict-item] # the same fields, fewer bytes


def _cut(value: Any, most: int) -> Any:
    match value:
        case str():
            return _cut_text(value, most)
        case [{"type": "text", "text": str(text), **rest}]:
            return [{"type": "text", "text": _cut_text(text, most - 60), **rest}]
        case _:
            return None


def _cut_text(text: str, most: int) -> str:
    kept = text[: max(0, most - _MARK_BYTES)]
    while kept and len(encode(kept)) > most - _MARK_BYTES:
        # An escape takes up to six bytes a character.
        kept = kept[: len(kept) * max(1, most - _MARK_BYTES) // len(encode(kept))][:-1]
    return f"{kept}… [{len(text) - len(kept)} characters left out: too large for the way to the coordinator]"
