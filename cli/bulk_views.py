"""Views of bulks: tables for terminals, JSON for programs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.text import Text

from cli.tables import print_fields, print_table
from cli.views import age, show_json, status_text
from coordinator_client.bulk_types import Bulk, BulkPage, BulkPreview
from runtime.terminal import complain, printable, say, show

_DONE = {"stop": "stopped", "delete": "deleted", "replay": "replayed", "hold": "held", "release": "released"}
# Progress is printed once for each such part of a bulk.
_PART = 0.1


def show_preview(action: str, preview: BulkPreview, *, as_json: bool) -> None:
    if as_json:
        show_json(preview)
        return
    rows = [
        (run["run_id"], status_text(run["status"]), run["agent_name"] or "", age(run["created_at"]))
        for run in preview["sample"]
    ]
    if rows:
        print_table(("run", "status", "agent", "age"), rows)
    others = preview["matches"] - len(rows)
    if others > 0:
        say(f"and {others:,} more")
    say(f"{preview['matches']:,} {_runs(preview['matches'])} would be {_DONE[action]}")
    if preview["searched_until"] is not None:
        say(f"searched back to {preview['searched_until']}; older runs may match too: narrow the filter, or repeat it")
    elif not preview["exact"]:
        say("more runs match than the limit allows: repeat it for the others")


def question(action: str, matches: int) -> str:
    target = f"the sessions of {matches:,}" if action == "delete" else f"{matches:,}"
    return f"{action} {target} {_runs(matches)}?"


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[Bulk], None]]:
    """Yield what reports the progress on stderr, a line for each tenth."""
    told = 0.0

    def draw(state: Bulk) -> None:
        nonlocal told
        part = state["done"] / max(1, state["total"])
        if not quiet and part >= told + _PART:
            told = part
            complain(f"{state['done']:,} of {state['total']:,}")

    yield draw


def show_bulk(bulk: Bulk, *, as_json: bool) -> None:
    if as_json:
        show_json(bulk)
        return
    fields: list[tuple[str, str | Text]] = [
        ("bulk", bulk["bulk_id"]),
        ("action", bulk["action"]),
        ("state", status_text(bulk["state"])),
        ("done", f"{bulk['done']:,} of {bulk['total']:,}"),
        (_DONE[bulk["action"]], f"{bulk['changed']:,}"),
        *((f"skipped, {reason}", f"{number:,}") for reason, number in sorted(bulk["skipped"].items())),
        *((error["run_id"], error["error"]) for error in bulk["errors"]),
    ]
    print_fields([(printable(name), value) for name, value in fields])


def show_bulks(page: BulkPage, *, as_json: bool) -> None:
    if as_json:
        show_json(page)
        return
    rows = [
        (
            bulk["bulk_id"],
            bulk["action"],
            status_text(bulk["state"]),
            f"{bulk['done']:,}/{bulk['total']:,}",
            f"{bulk['changed']:,}",
            age(bulk["created_at"]),
            bulk["created_by"] or "",
        )
        for bulk in page["bulks"]
    ]
    if rows:
        print_table(("bulk", "action", "state", "done", "changed", "age", "by"), rows)
    else:
        say("no bulks")
    if cursor := page.get("next_cursor"):
        show(Text(f"more: --cursor {cursor}", style="dim"))


def _runs(number: int) -> str:
    return "run" if number == 1 else "runs"
