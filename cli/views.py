"""Views of runs and runners: tables for terminals, JSON for programs.

Texts from runs may hold anything; control characters never reach the terminal.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from cli.tables import print_fields, print_table
from coordinator_client.messages import lines_of
from coordinator_client.types import Event, Result, Run, Runner, RunPage, Stopped, Submitted
from runtime.terminal import printable, printable_line, say, show

_COLOURS = {
    "completed": "green",
    "online": "green",
    "failed": "red",
    "lost": "red",
    "stale": "yellow",
    "draining": "yellow",
    "stopped": "yellow",
    "stopping": "yellow",
    "running": "cyan",
    "claimed": "cyan",
}
_LONGEST_CELL = 60


def show_submitted(submitted: Submitted, *, as_json: bool) -> None:
    if as_json:
        show_json(submitted)
        return
    show(
        Text.assemble(
            submitted["run_id"], "  session ", submitted["session_id"], "  ", status_text(submitted["status"])
        )
    )


def show_stopped(stopped: Stopped, *, as_json: bool) -> None:
    if as_json:
        show_json(stopped)
        return
    message = stopped.get("message")
    show(
        Text.assemble(
            stopped["session_id"], "  ", status_text(stopped["status"]), f"  {printable(message)}" if message else ""
        )
    )


def show_drained(runner: Runner, *, as_json: bool) -> None:
    if as_json:
        show_json(runner)
        return
    since = runner.get("draining_since")
    reason = runner.get("drain_reason")
    if since is None:
        show(Text(f"{runner['runner_id']}  takes runs"))
    else:
        told = f": {printable_line(reason)}" if reason else ""
        show(Text.assemble(runner["runner_id"], "  ", status_text("draining"), f" for {age(since)}{told}"))


def show_runs(page: RunPage, *, as_json: bool) -> None:
    if as_json:
        show_json(page)
        return
    rows = [
        (
            run["run_id"],
            status_text(run["status"]),
            run["session_id"],
            age(run["created_at"]),
            run["runner_id"] or "",
            _attempts(run, "/"),
            _short(run["error"] or _prompt(run)),
        )
        for run in page["runs"]
    ]
    if rows:
        print_table(("run", "status", "session", "age", "runner", "attempt", "what"), rows)
    else:
        say("no runs")
    if cursor := page.get("next_cursor"):
        show(Text(f"more: --cursor {cursor}", style="dim"))


def _attempts(run: Run, between: str) -> str:
    """Return the number of starts, and how many are allowed, unless a retry policy has allowed more."""
    attempt, most = run["attempt"], run["max_attempts"]
    return str(attempt) if attempt > most else f"{attempt}{between}{most}"


def show_runners(runners: Sequence[Runner], *, as_json: bool) -> None:
    if as_json:
        show_json({"runners": runners})
        return
    if not runners:
        say("no runners")
        return
    head = ("runner", "status", "profile", "host", "directory", "tags", "in hand", "heard")
    print_table(head, map(_runner_row, runners))


def _runner_row(runner: Runner) -> tuple[str | Text, ...]:
    capacity = runner.get("capacity")
    in_hand = str(runner.get("runs_in_hand", ""))
    return (
        runner["runner_id"],
        _state_text(runner),
        runner["executor_profile"],
        runner["hostname"],
        _short(runner["project_dir"]),
        ", ".join(runner["tags"] or []),
        in_hand if capacity is None else f"{in_hand}/{capacity}",
        f"{span(runner['seconds_since_heartbeat'])} ago",
    )


def _state_text(runner: Runner) -> Text:
    state, reason = state_of(runner), runner.get("drain_reason")
    told = f": {_short(printable_line(reason))}" if state == "draining" and reason else ""
    return Text.assemble(status_text(state), told)


def state_of(runner: Runner) -> str:
    """Return the state of a runner in one word: lost and stale count before draining."""
    if runner.get("lost"):
        return "lost"
    return "draining" if runner.get("draining_since") and runner["status"] == "online" else runner["status"]


def show_run(run: Run, result: Result | None, events: Sequence[Event] | None, *, as_json: bool) -> None:
    if as_json:
        more = {} if events is None else {"events": events}
        show_json({**run, "result": result, **more})
        return
    for role, line in lines_of(events or []):
        show(Text(printable(line), style="dim" if role == "system" else ""))
    fields = _details(run)
    if result is not None:
        data = result["result_data"]
        shown = result["result_text"] or (json.dumps(data, indent=2, ensure_ascii=False) if data is not None else "")
        fields.append(("result", shown))
    print_fields(fields)


def _details(run: Run) -> list[tuple[str, str | Text]]:
    took = ""
    if run["started_at"]:
        end = _time(run["completed_at"]) if run["completed_at"] else datetime.now(UTC)
        took = span((end - _time(run["started_at"])).total_seconds())
    rows: dict[str, str | Text | None] = {
        "run": run["run_id"],
        "session": run["session_id"],
        "status": status_text(run["status"]),
        "parameters": _prompt(run),
        "agent": run["agent_name"],
        "parent": run["parent_session_id"],
        "demands": _demands(run),
        "labels": " ".join(f"{key}={value}" for key, value in run["labels"].items()),
        "runner": run["runner_id"],
        "attempt": _attempts(run, " of "),
        "submitted": f"{age(run['created_at'])} ago",
        "not before": run["not_before"],
        "took": took,
        "error": run["error"],
    }
    return [(name, value) for name, value in rows.items() if value]


def _demands(run: Run) -> str:
    asked = {key: value for key, value in run["demands"].items() if value}
    if asked.get("executor_type") == "autonomous":
        del asked["executor_type"]
    return json.dumps(asked, ensure_ascii=False) if asked else ""


def _prompt(run: Run) -> str:
    parameters = run["parameters"]
    match parameters:
        case {"prompt": str(prompt)} if len(parameters) == 1:
            return prompt
        case _:
            return json.dumps(parameters, ensure_ascii=False)


def age(timestamp: str) -> str:
    return span((datetime.now(UTC) - _time(timestamp)).total_seconds())


def span(seconds: float) -> str:
    """Format a duration in its natural unit; negative ones, of a clock slightly off, as 0."""
    seconds = max(0.0, seconds)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _time(timestamp: str) -> datetime:
    return datetime.fromisoformat(timestamp)


def _short(text: str) -> str:
    line = printable(text).partition("\n")[0]
    return line if len(line) <= _LONGEST_CELL else line[: _LONGEST_CELL - 1] + "…"


def status_text(status: str) -> Text:
    return Text(printable_line(status), style=_COLOURS.get(status, ""))


def show_json(value: Any) -> None:
    say(json.dumps(value, indent=2))
