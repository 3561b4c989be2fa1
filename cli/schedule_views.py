"""Views of schedules: tables for terminals, JSON for programs."""

from collections.abc import Sequence

from rich.text import Text

from cli.tables import print_fields, print_table
from cli.views import show_json, status_text
from coordinator_client.schedule_types import (
    Backfill,
    Fire,
    NextTimes,
    Schedule,
    SchedulePage,
    SchedulesChanged,
    ScheduleSummary,
)
from runtime.terminal import printable, say, show


def show_schedules(page: SchedulePage, *, as_json: bool) -> None:
    if as_json:
        show_json(page)
        return
    rows = [
        (
            each["schedule_id"],
            status_text(each["state"]),
            _times(each),
            each["timezone"],
            _shown(each["next_fire_at"]),
            "-" if each["newest_fire"] is None else _outcome(each["newest_fire"]),
        )
        for each in page["schedules"]
    ]
    if rows:
        print_table(("schedule", "state", "times", "zone", "next", "last"), rows)
    else:
        say("no schedules")
    if cursor := page.get("next_cursor"):
        show(Text(f"more: --cursor {cursor}", style="dim"))


def show_changed(changed: SchedulesChanged, *, as_json: bool) -> None:
    if as_json:
        show_json(changed)
        return
    for schedule_id in changed["schedule_ids"]:
        say(printable(schedule_id))
    done = {"pause": "paused", "resume": "resumed", "delete": "deleted"}[changed["action"]]
    number, would = len(changed["schedule_ids"]), "would be " if changed["dry_run"] else ""
    say(f"{number} {'schedule' if number == 1 else 'schedules'} {would}{done}")
    for reason, skipped in sorted(changed["skipped"].items()):
        say(f"skipped, {printable(reason)}: {skipped}")
    if changed["dry_run"] and changed["more"]:
        say("more schedules match")


def show_schedule(schedule: Schedule, fires: Sequence[Fire] | None = None, *, as_json: bool) -> None:
    if as_json:
        show_json(schedule if fires is None else {**schedule, "fires": list(fires)})
        return
    fields: list[tuple[str, str | Text]] = [
        ("schedule", schedule["schedule_id"]),
        ("state", status_text(schedule["state"])),
        ("version", str(schedule["version"])),
        ("times", _times(schedule)),
        ("zone", schedule["timezone"]),
        ("next", _shown(schedule["next_fire_at"])),
        ("overlap", schedule["overlap"]),
        ("fired", str(schedule["fired"])),
    ]
    if schedule["pause_reason"]:
        fields.append(("reason of the pause", schedule["pause_reason"]))
    if schedule["note"]:
        fields.append(("note", schedule["note"]))
    print_fields(fields)
    if fires:
        say()
        _print_fires(fires)


def show_fire(fire: Fire, *, as_json: bool) -> None:
    if as_json:
        show_json(fire)
    else:
        _print_fires([fire])


def show_times(found: NextTimes, *, as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    rows = [(time["local"], _shown(time["fire_at"]), time["note"] or "") for time in found["times"]]
    if rows:
        print_table((found["timezone"], "UTC", "note"), rows)
    else:
        say("no time is left")


def show_backfill(found: Backfill, *, as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    verb = "would be submitted" if found["dry_run"] else "will be submitted"
    between = f", from {_shown(found['first'])} to {_shown(found['last'])}" if found["times"] else ""
    say(f"{found['times']:,} {'time' if found['times'] == 1 else 'times'} {verb}{between}")
    if found["already"]:
        say(f"{found['already']:,} have a run already")
    if found["more"]:
        say("there are more: repeat it for the others")


def _print_fires(fires: Sequence[Fire]) -> None:
    rows = [
        (_shown(fire["fire_at"]), fire["kind"], _outcome(fire), fire["run_id"] or "-", fire["reason"] or "")
        for fire in fires
    ]
    print_table(("time", "kind", "outcome", "run", "reason"), rows)


def _outcome(fire: Fire) -> str:
    status = fire["run_status"]
    times = f" ×{fire['times']}" if fire["times"] > 1 else ""  # noqa: RUF001 -- a sign for times
    return fire["outcome"] + times if status is None else f"{fire['outcome']}, {status}"


def _times(schedule: ScheduleSummary | Schedule) -> str:
    spec = schedule["spec"]
    parts = [*spec["cron"]]
    if spec["every_seconds"] is not None:
        parts.append(f"every {spec['every_seconds']} s")
    if spec["at"]:
        parts.append(f"{len(spec['at'])} single {'time' if len(spec['at']) == 1 else 'times'}")
    return "; ".join(parts)


def _shown(moment: str | None) -> str:
    return "-" if moment is None else moment.replace("+00:00", "Z")
