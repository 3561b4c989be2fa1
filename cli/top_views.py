from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cli.views import state_of
from coordinator_client.operator_types import Readiness
from coordinator_client.overview_types import Queue, RunCounts, Series
from coordinator_client.types import Demands, Runner
from runtime.terminal import printable_line

# Columns of a terminal from which on the less important ones of ours are shown.
WIDE: Final = 90
MOST_ROWS: Final = 20
RUNNER_STATES: Final = ("online", "draining", "stale", "lost")


@dataclass
class Reading:
    """Figures of one frame. ``fault``: why no newer ones could be read."""

    health: Readiness
    counts: RunCounts
    queues: Sequence[Queue]
    submitted: Series
    ended: Series
    waits: Series
    minutes: int
    runners: Sequence[Runner] = ()
    fault: str = ""
    read_at: datetime = field(default_factory=lambda: datetime.now(UTC))


def frame(reading: Reading, url: str, width: int) -> Group:
    """Return one frame, which fits 60 columns."""
    parts: list[Text | Table] = [*_summary(reading, url), Text(), _queues(reading, is_wide=width >= WIDE)]
    if reading.runners:
        parts += [Text(), _runners(reading.runners, is_wide=width >= WIDE)]
    return Group(*parts)


def _summary(reading: Reading, url: str) -> list[Text]:
    now, ended = reading.counts["now"], reading.counts["ended"]
    pending = now["pending"]
    reason = reading.health.get("reason")
    health = reading.health["status"] + (f": {reason}" if reason else "")
    lines = [
        Text(f"{printable_line(url)}  {reading.read_at:%H:%M:%S} UTC", style="bold"),
        Text(f"coordinator  {printable_line(health)}", style="" if health == "ready" else "bold red"),
        Text(f"pending      {pending['ready']} ready, {pending['delayed']} delayed, {pending['waiting']} waiting"),
        Text(f"in hand      {now['claimed']} claimed, {now['running']} running, {now['stopping']} stopping"),
        Text(f"last day     {ended['completed']} completed, {ended['failed']} failed, {ended['stopped']} stopped"),
        Text(f"a minute     {_rate(reading, reading.submitted)} submitted, {_rate(reading, reading.ended)} ended"),
    ]
    wait = _newest(reading.waits)
    if wait is not None:
        lines.append(Text(f"wait         {wait[0]:.2g} s median, {wait[1]:.2g} s for 95 %"))
    if reading.runners:
        numbers = Counter(state_of(runner) for runner in reading.runners)
        shown = ", ".join(f"{numbers[state]} {state}" for state in RUNNER_STATES)
        lines.append(Text(f"runners      {shown}"))
    if reading.fault:
        lines.append(Text(f"no answer    {printable_line(reading.fault)}", style="bold red"))
    return lines


def _queues(reading: Reading, *, is_wide: bool) -> Table:
    head = ["queue", "ready", "oldest", "in hand", "runners"] + (["free", "a minute", "empty in"] if is_wide else [])
    table = _table(head)
    for queue in reading.queues[:MOST_ROWS]:
        matching = queue["matching_runners"]
        oldest = queue["oldest_ready_at"]
        waited = None if oldest is None else (reading.read_at - datetime.fromisoformat(oldest)).total_seconds()
        # Red: runs that no runner online can take.
        is_stuck = queue["ready"] > 0 and not matching["online"]
        cells = [_name(queue["demands"]), str(queue["ready"]), _span(waited), str(queue["in_hand"])]
        cells.append(str(matching["online"]))
        if is_wide:
            free = "any" if matching["unlimited"] else str(matching["free_slots"])
            cells += [free, f"{queue['claims_per_minute']:.3g}", _span(queue["eta_seconds"])]
        table.add_row(*cells, style="bold red" if is_stuck else "")
    if not reading.queues:
        table.add_row("no unfinished runs", *[""] * (len(head) - 1))
    return table


def _runners(runners: Sequence[Runner], *, is_wide: bool) -> Table:
    """Show those first that have a trouble, then the busiest."""
    table = _table(["runner", "state", "in hand", "heard"] + (["profile", "tags"] if is_wide else []))
    ordered = sorted(runners, key=lambda runner: (state_of(runner) == "online", -runner["runs_in_hand"]))
    for runner in ordered[:MOST_ROWS]:
        state = state_of(runner)
        capacity = runner["capacity"]
        in_hand = f"{runner['runs_in_hand']}" + ("" if capacity is None else f" of {capacity}")
        cells = [printable_line(runner["hostname"])[:24], state, in_hand, _span(runner["seconds_since_heartbeat"])]
        if is_wide:
            cells += [printable_line(runner["executor_profile"])[:20], printable_line(" ".join(runner["tags"]))[:20]]
        table.add_row(*cells, style="" if state == "online" else "yellow")
    return table


def _table(head: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for place, name in enumerate(head):
        table.add_column(name, justify="left" if place == 0 else "right", no_wrap=True, overflow="ellipsis")
    return table


def _name(demands: Demands) -> str:
    named = [
        demands.get("executor_profile") or "",
        *(f"#{tag}" for tag in demands.get("tags") or ()),
        *(f"{name}={value}" for name in ("hostname", "project_dir") if (value := demands.get(name))),
    ]
    return printable_line(" ".join(filter(None, map(str, named))))[:28] or "any"


def _rate(reading: Reading, series: Series) -> str:
    """Return the mean of the last full minutes."""
    newest = reading.read_at.timestamp() - 60
    begin = newest - reading.minutes * 60
    total = sum(point[1] for point in _points(series) if begin <= point[0] <= newest)
    return f"{total / reading.minutes:.3g}"


def _newest(series: Series) -> tuple[float, float] | None:
    points = _points(series)
    return max(points)[1:3] if points else None


def _points(series: Series) -> list[tuple[float, float, float]]:
    """Return time, first and second value of each point; curves of numbers have no second one."""
    return [
        (point[0] or 0.0, point[1] or 0.0, (point[2] or 0.0) if len(point) > 2 else 0.0)
        for curve in series["series"]
        for point in curve["points"]
    ]


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{max(0, seconds) / divisor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"
