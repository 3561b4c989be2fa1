import asyncio
import json
import os
import stat
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from rich.text import Text

from cli.views import status_text
from coordinator_client.feed import FeedItem
from coordinator_client.messages import text_of
from coordinator_client.types import Event
from runtime.terminal import complain, printable, say, show

_LONGEST_TEXT = 200
_REASONS = {
    "expired": "the cursor is older than what is kept",
    "epoch": "the cursor is of another history",
    "ahead": "the cursor is ahead of the history",
    "malformed": "that is no cursor",
}


def show_item(item: FeedItem, *, as_json: bool) -> None:
    """Write the item's line at once. Raises OSError when that fails, so that no item is lost silently."""
    if as_json:
        # In ASCII: control characters become escapes.
        say(json.dumps({"id": item.id, "event": item.event, "data": item.data}), flush=True)
    elif item.event != "reset":
        _print(line(item, datetime.now(UTC)))


class Notices:
    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._is_lost = False

    def connection(self, url: str, cause: str | None) -> None:
        if cause is not None and not self._is_lost:
            self._say(f"connection lost: {url}: {cause}")
        elif cause is None and self._is_lost:
            self._say(f"connected again: {url}")
        self._is_lost = cause is not None

    def item(self, item: FeedItem) -> None:
        if item.event == "reset":
            reason = str(item.data.get("reason"))
            self._say(f"history was skipped: {_REASONS.get(reason, reason)}")

    def _say(self, message: str) -> None:
        if not self._quiet:
            complain(_one_line(message))


def leave_with_reader(loop: asyncio.AbstractEventLoop) -> None:
    """End the process when the reader closes the pipe, even while there is nothing to write."""
    if stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode):
        # Our end becomes readable only when the other one is closed.
        loop.add_reader(sys.stdout.fileno(), sys.exit)


def line(item: FeedItem, now: datetime) -> Text:
    time, kind, session_id, what = now, item.event, "", Text()
    match item.event, item.data:
        case "event", {"data": {**event}}:
            time = _time(event.get("timestamp")) or now
            kind, session_id = str(event.get("event_type")), str(event.get("session_id"))
            what = Text(_one_line(_happened(cast("Event", event))))
        case "session_created" | "session_updated", {"session": {"session_id": session_id, **session}}:
            what = _status(session)
            if item.event == "session_created" and session.get("agent_name"):
                what.append(f"  {_one_line(session['agent_name'])}")
        case "session_deleted", {"session_id": session_id, "runs_deleted": runs}:
            what = Text(f"{runs} runs with it")
        case "run_failed", {"run_id": run_id, "session_id": session_id, "error": error}:
            what = Text(f"{_one_line(run_id)}  {_one_line(error)}")
        case "run_updated", {"run": {"run_id": run_id, "session_id": session_id, **run}}:
            rest = [run.get("runner_id"), f"attempt {run['attempt']}" if run.get("attempt") else "", run.get("error")]
            what = Text.assemble(
                _one_line(run_id), "  ", _status(run), *(f"  {_one_line(part)}" for part in rest if part)
            )
        case "init", {"sessions": [*sessions], **more}:
            what = Text(f"{len(sessions)} sessions as they are{', and older ones' if more.get('truncated') else ''}")
        case _:
            what = Text(_one_line(_compact(item.data)))
    return Text.assemble(
        (_shown_time(time, now), "dim"),
        "  ",
        (f"{_one_line(kind):<15}", "red" if kind == "run_failed" else ""),
        f"  {_one_line(session_id)}  " if session_id else "  ",
        what,
    )


def _happened(event: Event) -> str:
    match event.get("event_type"):
        case "message":
            return f"{event.get('role') or 'message'}: {text_of(event).strip()}"
        case "pre_tool":
            return f"{event.get('tool_name')} {_compact(event.get('tool_input'))}"
        case "post_tool":
            return f"{event.get('tool_name')} {event.get('error') or _compact(event.get('tool_output'))}"
        case "run_completed":
            return f"{event.get('reason')}, exit code {event.get('exit_code')}"
        case "result":
            return event.get("result_text") or _compact(event.get("result_data"))
        case _:
            return text_of(event) or str(event.get("error") or event.get("reason") or "")


def _status(shown: Mapping[object, object]) -> Text:
    return status_text(_one_line(shown.get("status")))


def _one_line(value: object) -> str:
    text = str(value)[: 50 * _LONGEST_TEXT].strip().replace("\r\n", "\n")
    shown = printable(text).partition("\n")[0].replace("\t", " ")
    return shown if len(shown) <= _LONGEST_TEXT else shown[: _LONGEST_TEXT - 1] + "…"


def _compact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _time(timestamp: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(str(timestamp))
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone()
    except (ValueError, OverflowError):
        return None


def _shown_time(time: datetime, now: datetime) -> str:
    local = time.astimezone()
    return local.strftime("%H:%M:%S" if local.date() == now.astimezone().date() else "%Y-%m-%d %H:%M:%S")


def _print(shown: Text) -> None:
    if sys.stdout.isatty():
        # Leave wrapping to the terminal: a cropped id or text is of no use.
        show(shown, soft_wrap=True)
    else:
        say(shown.plain.rstrip(), flush=True)
