"""Views of holds: tables for terminals, JSON for programs."""

from collections.abc import Sequence

from rich.text import Text

from cli.tables import print_table
from cli.views import age, show_json, status_text
from coordinator_client.hold_types import Hold, RunHeld
from runtime.terminal import say, show


def show_run(held: RunHeld, *, as_json: bool) -> None:
    if as_json:
        show_json(held)
        return
    state = "held" if held["held"] else "released"
    show(Text.assemble(held["run_id"], "  ", status_text(held["status"]), f"  {state}"))


def show_holds(holds: Sequence[Hold], *, as_json: bool) -> None:
    if as_json:
        show_json({"holds": holds})
        return
    if not holds:
        say("no holds")
        return
    rows = [(hold["name"], _held(hold), age(hold["created_at"]), hold["held_by"], hold["note"]) for hold in holds]
    print_table(("hold", "runs", "age", "by", "note"), rows)


def _held(hold: Hold) -> str:
    demands = hold["demands"]
    if hold["everything"]:
        return "all"
    if hold["run_id"] is not None:
        return hold["run_id"]
    if demands is None:
        return f"agent {hold['agent_name']}"
    named = {name: value for name, value in demands.items() if name != "tags" and value is not None}
    return ", ".join([*(f"{name} {value}" for name, value in named.items()), *(f"#{tag}" for tag in demands["tags"])])
