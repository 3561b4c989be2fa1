"""View of an explanation for a terminal: one line that says it all, then each reason with what to do about it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from rich.text import Text

from cli.tables import print_fields
from cli.views import age, show_json, status_text
from runtime.terminal import printable_line

if TYPE_CHECKING:
    from coordinator_client.operator_types import Reason, RunExplanation, RunnerExplanation

# Groups of runners that the headline names.
_IN_HEADLINE: Final = 3


def show_run_explanation(explained: "RunExplanation", *, as_json: bool) -> None:
    if as_json:
        show_json(explained)
    else:
        print_fields(_run(explained))


def show_runner_explanation(explained: "RunnerExplanation", *, as_json: bool) -> None:
    if as_json:
        show_json(explained)
    else:
        print_fields(_runner(explained))


def _run(explained: "RunExplanation") -> "Iterator[tuple[str, str | Text]]":
    yield "run", explained["run_id"]
    yield from _head(explained)
    runners = explained["runners"]
    if runners and len(runners["rejected"]) > _IN_HEADLINE:
        groups = [f"{number} {text}" for text, number in runners["rejected"].items()]
        yield "runners", ", ".join([f"{runners['known']} known", f"{runners['match']} match", *groups])


def _runner(explained: "RunnerExplanation") -> "Iterator[tuple[str, str | Text]]":
    yield "runner", explained["runner_id"]
    yield from _head(explained)
    capacity = explained["capacity"]
    yield "in hand", str(explained["runs_in_hand"]) + ("" if capacity is None else f" of {capacity}")
    yield "polls", str(explained["polls"])
    ready = explained["ready"]
    groups = [f"{number} demand {text}" for text, number in ready["rejected"].items()]
    count = f"{ready['count']}{'' if ready['exact'] else ' or more'}"
    yield "ready", ", ".join([count, f"{ready['match']} match", *groups])


def _head(explained: "RunExplanation | RunnerExplanation") -> "Iterator[tuple[str, str | Text]]":
    since = explained["since"]
    yield "status", Text.assemble(status_text(explained["status"]), "" if since is None else f" for {age(since)}")
    yield "why", Text(printable_line(explained["headline"]), style="bold")
    for reason in explained["reasons"]:
        yield from _reason(reason, explained["headline"])


def _reason(reason: "Reason", headline: str) -> "Iterator[tuple[str, str | Text]]":
    if reason["text"] not in headline:
        yield "because" if reason["blocking"] else "also", f"{reason['text']} [{reason['code']}]"
    if reason["fix"]:
        yield "fix", reason["fix"]
