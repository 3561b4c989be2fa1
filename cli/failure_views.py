"""Views of failures: tables for terminals, JSON for programs."""

from cli.tables import print_fields, print_table
from cli.views import age, show_json
from coordinator_client.failure_types import FailureGroup, Failures
from runtime.terminal import complain, printable, say


def show_groups(failures: Failures, *, as_json: bool) -> None:
    if as_json:
        show_json(failures)
        return
    if not failures["groups"]:
        say("no failed runs")
        return
    rows = [
        (group["fingerprint"], group["count"], age(group["newest_at"]), _agents(group), group["text"])
        for group in failures["groups"]
    ]
    print_table(("fingerprint", "runs", "age", "agents", "error"), rows)
    if (until := failures.get("searched_until")) is not None:
        say(f"looked at {failures['runs']} failed runs; older than {until} there may be more")


def show_group(failures: Failures, fingerprint: str, *, as_json: bool) -> int:
    """Show the group, and return the exit code: 1 where none of the runs that were looked at has this fingerprint."""
    group = next((each for each in failures["groups"] if each["fingerprint"] == fingerprint), None)
    if group is None:
        complain(f"no group {fingerprint}: `coordinator failures` with the same filters lists them")
        return 1
    if as_json:
        show_json(group)
        return 0
    shown = {
        "fingerprint": group["fingerprint"],
        "runs": str(group["count"]),
        "agents": _agents(group),
        "oldest": group["oldest_at"],
        "newest": f"{group['newest_at']}  {group['newest_run_id']}",
    }
    print_fields(shown.items())
    say(printable(group["example"] or group["text"]))
    for run_id in group["run_ids"]:
        say(run_id)
    return 0


def _agents(group: FailureGroup) -> str:
    return ", ".join(f"{name} {number}" for name, number in group["agents"].items())
