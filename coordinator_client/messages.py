"""Lines of output out of events, for viewers."""

from collections.abc import Iterable, Iterator

from coordinator_client.types import Event


def lines_of(events: Iterable[Event]) -> Iterator[tuple[str, str]]:
    """The lines of all messages, each with its role, in the order in which they ended; unfinished ones last.

    A text of which a block says `partial` goes on in the next one of its role; one that begins with a carriage return
    replaces what there is of its line.
    """
    unfinished: dict[str, str] = {}
    for event in events:
        if event.get("event_type") != "message":
            continue
        role, text = str(event.get("role")), text_of(event)
        before = unfinished.pop(role, "")
        line = text[1:] if text.startswith("\r") and before else before + text
        if _is_partial(event):
            unfinished[role] = line
        else:
            yield role, line
    yield from unfinished.items()


def text_of(event: Event) -> str:
    """The text of an event's content, as it came."""
    match event.get("content"):
        case str(text):
            return text
        case [*blocks]:
            return "\n".join(str(block["text"]) for block in blocks if isinstance(block, dict) and "text" in block)
        case _:
            return ""


def _is_partial(event: Event) -> bool:
    content = event.get("content")
    return isinstance(content, list) and any(isinstance(one, dict) and one.get("partial") is True for one in content)
