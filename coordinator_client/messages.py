from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def lines_of(events: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield the lines of all messages, each with its role, in the order in which they ended; unfinished ones last.

    A text with a `partial` block is continued by the next text of its role; a text that begins with a carriage return
    replaces its line so far.
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


def text_of(event: Mapping[str, Any]) -> str:
    """Return the text of an event's content, blocks joined by line ends; empty without any."""
    match event.get("content"):
        case str(text):
            return text
        case [*blocks]:
            return "\n".join(str(block["text"]) for block in blocks if isinstance(block, dict) and "text" in block)
        case _:
            return ""


def _is_partial(event: Mapping[str, Any]) -> bool:
    content = event.get("content")
    return isinstance(content, list) and any(
        isinstance(block, dict) and block.get("partial") is True for block in content
    )
