"""Check how items of the feed are printed on a terminal."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cli.watch_views import Notices, line, show_item
from coordinator_client.feed import FeedItem

NOW = datetime(2026, 5, 4, 12, 30, 15, tzinfo=UTC)


def shown(event: str, data: dict[str, Any]) -> list[str]:
    """Return the columns after the time."""
    text = line(FeedItem("v1.a.1", event, data), NOW).plain.rstrip()
    assert "\n" not in text
    return [column.strip() for column in text.split("  ") if column.strip()][1:]


def happened(**fields: Any) -> list[str]:
    return shown("event", {"data": {"session_id": "ses", "timestamp": NOW.isoformat(), **fields}})


@pytest.mark.parametrize(
    ("event", "data", "columns"),
    [
        (
            "session_created",
            {"session": {"session_id": "ses", "status": "pending", "agent_name": "sky"}},
            ["session_created", "ses", "pending", "sky"],
        ),
        ("session_updated", {"session": {"session_id": "ses", "status": "idle"}}, ["session_updated", "ses", "idle"]),
        ("session_deleted", {"session_id": "ses", "runs_deleted": 3}, ["session_deleted", "ses", "3 runs with it"]),
        (
            "run_failed",
            {"run_id": "run", "session_id": "ses", "error": "exit code 1\nno luck"},
            ["run_failed", "ses", "run", "exit code 1"],
        ),
        (
            "run_updated",
            {
                "run": {
                    "run_id": "run",
                    "session_id": "ses",
                    "status": "claimed",
                    "runner_id": "lnch",
                    "attempt": 0,
                    "error": None,
                }
            },
            ["run_updated", "ses", "run", "claimed", "lnch"],
        ),
        (
            "run_updated",
            {"run": {"run_id": "run", "session_id": "ses", "status": "failed", "attempt": 2, "error": "lost"}},
            ["run_updated", "ses", "run", "failed", "attempt 2", "lost"],
        ),
        ("init", {"sessions": [{}, {}]}, ["init", "2 sessions as they are"]),
        ("init", {"sessions": [{}], "truncated": True}, ["init", "1 sessions as they are, and older ones"]),
        ("what_comes_later", {"a": 1}, ["what_comes_later", '{"a": 1}']),
        ("session_updated", {"unlike": "before"}, ["session_updated", '{"unlike": "before"}']),
    ],
)
def test_each_kind_of_item_is_one_line(event: str, data: dict[str, Any], columns: list[str]) -> None:
    """Include a kind that this version does not know."""
    assert shown(event, data) == columns


def test_events_of_session_show_their_type_and_first_line_of_their_text() -> None:
    blocks = [{"type": "text", "text": "\nhello\nworld"}]
    assert happened(event_type="message", role="assistant", content=blocks) == ["message", "ses", "assistant: hello"]
    assert happened(event_type="message", content="hi\r\nyou") == ["message", "ses", "message: hi"]
    assert happened(event_type="pre_tool", tool_name="ls", tool_input={"path": "/"})[2] == 'ls {"path": "/"}'
    assert happened(event_type="post_tool", tool_name="ls", tool_output="a\nb")[2] == "ls a"
    assert happened(event_type="post_tool", tool_name="ls", error="denied")[2] == "ls denied"
    assert happened(event_type="run_completed", reason="completed", exit_code=0)[2] == "completed, exit code 0"
    assert happened(event_type="result", result_text="done")[2] == "done"
    assert happened(event_type="result", result_data={"n": 1})[2] == '{"n": 1}'
    assert happened(event_type="run_start") == ["run_start", "ses"]
    assert happened(event_type="my own", content="text") == ["my own", "ses", "text"]


def test_items_print_no_control_codes_or_line_breaks() -> None:
    """Check texts, names, and separators that only some programs honour."""
    told = happened(event_type="message", role="\x1b[2J", content="a\x1b[31mb\x07\u2028c\u0085d\x0be\ud800\tf")
    assert told[2] == "\ufffd[2J: a\ufffd[31mb\ufffd\ufffdc\ufffdd\ufffde\ufffd f"
    assert happened(event_type="a\x1bb", session_id="s\x9bs")[:2] == ["a\ufffdb", "s\ufffds"]
    assert shown("run_failed", {"run_id": "r\x07", "session_id": "s", "error": "\x1b]0;x"})[2:] == [
        "r\ufffd",
        "\ufffd]0;x",
    ]
    assert shown("new\x1bkind", {"x": "\x1b"}) == ["new\ufffdkind", '{"x": "\\u001b"}']


def test_long_text_is_cut() -> None:
    text = happened(event_type="message", role="user", content="x" * 100_000)[2]
    assert len(text) == 200
    assert text.endswith("x…")


@pytest.mark.parametrize("timestamp", ["yesterday", "", None, 7, "0001-01-01T00:00:00+14:00"])
def test_invalid_timestamp_is_replaced_by_arrival_time(timestamp: object) -> None:
    """Timestamps are texts of clients."""
    item = FeedItem("", "event", {"data": {"event_type": "x", "session_id": "s", "timestamp": timestamp}})
    assert line(item, NOW).plain.startswith(NOW.astimezone().strftime("%H:%M:%S  "))


def test_date_is_shown_for_other_days_only() -> None:
    earlier = NOW - timedelta(days=2)
    data = {"data": {"event_type": "x", "session_id": "s", "timestamp": earlier.replace(tzinfo=None).isoformat()}}
    assert line(FeedItem("", "event", data), NOW).plain.startswith(earlier.astimezone().strftime("%Y-%m-%d %H:%M:%S  "))


def test_json_lines_are_ascii_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Print one object a line, also for a reset."""
    data = {"data": {"content": "a\u2028b\x1b\ud800ü"}}
    show_item(FeedItem("v1.a.2", "event", data), as_json=True)
    show_item(FeedItem("v1.a~init.3", "reset", {"reason": "epoch"}), as_json=True)
    first, second = capsys.readouterr().out.splitlines()
    assert first.isascii()
    assert json.loads(first) == {"id": "v1.a.2", "event": "event", "data": data}
    assert json.loads(second) == {"id": "v1.a~init.3", "event": "reset", "data": {"reason": "epoch"}}


def test_lost_and_restored_connection_are_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Report it once however many addresses fail; a stream that ends and is reopened at once is not reported."""
    notices = Notices(quiet=False)
    for url, cause in [("a", None), ("a", None), ("a", "gone"), ("b", "refused"), ("b", None), ("b", None)]:
        notices.connection(url, cause)
    assert capsys.readouterr().err == "coordinator: connection lost: a: gone\ncoordinator: connected again: b\n"


def test_skipped_history_is_reported_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """Print it on stderr, and in JSON as an object."""
    reset = FeedItem("v1.a~init.3", "reset", {"reason": "expired"})
    Notices(quiet=False).item(reset)
    Notices(quiet=True).item(reset)
    show_item(reset, as_json=False)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "coordinator: history was skipped: the cursor is older than what is kept\n"
