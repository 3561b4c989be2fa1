"""Check how output lines are assembled from message events."""

from typing import Any

from coordinator_client.messages import lines_of


def message(text: str, role: str = "assistant", **block: object) -> dict[str, Any]:
    return {"event_type": "message", "role": role, "content": [{"type": "text", "text": text, **block}]}


def test_partial_texts_make_one_line() -> None:
    """Join them also if the other role writes in between."""
    events = [message("na", partial=True), message("oops", "system"), message("me? ", partial=True), message("ann")]
    assert list(lines_of(events)) == [("system", "oops"), ("assistant", "name? ann")]


def test_carriage_return_replaces_the_open_line() -> None:
    """Without an open line it is plain text."""
    events = [message("10%", partial=True), message("\r20%", partial=True), message("\r30%"), message("\rnext")]
    assert list(lines_of(events)) == [("assistant", "30%"), ("assistant", "\rnext")]


def test_unterminated_line_is_shown_last() -> None:
    assert list(lines_of([message("a? ", partial=True), message("b", "system")])) == [
        ("system", "b"),
        ("assistant", "a? "),
    ]


def test_messages_of_other_clients_are_lines() -> None:
    """Accept content that is text, several blocks, or empty; ignore other events."""
    events: list[dict[str, Any]] = [
        {"event_type": "message", "role": "user", "content": "text"},
        {"event_type": "message", "content": [{"text": "a"}, "b", {"text": "c"}]},
        {"event_type": "message", "role": "user", "content": None},
        {"event_type": "result", "result_text": "x"},
    ]
    assert list(lines_of(events)) == [("user", "text"), ("None", "a\nc"), ("user", "")]
