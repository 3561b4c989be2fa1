"""Draw states of a run, its session and its runner with a report about it, and write their rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations, product
from typing import Any

from sqlalchemy import Connection, insert, text

from models.core.callers import Caller, Role
from models.core.statuses import IN_HAND, TERMINAL, ExecutionMode, Outcome, RunStatus, RunType
from models.runs.reports import Report
from models.schema.tables import child_results, runners, runs, sessions, stop_commands

AWKWARD = (
    'quote " backslash \\ newline \n bell \x07 NUL \0 line separator \u2028 lightning ⚡ emoji 😀 half \ud83d </script>'
)
CALLERS = {
    "admin": Caller(),
    "named admin": Caller(by="key:1"),
    "owning admin": Caller(owner="team", by="key:2"),
    "own runner": Caller(Role.RUNNER, "team"),
    "other runner": Caller(Role.RUNNER, "other"),
    "runner without owner": Caller(Role.RUNNER),
}
REPORTS = (
    (Outcome.STARTED, None),
    (Outcome.COMPLETED, None),
    (Outcome.COMPLETED, "idle"),
    (Outcome.COMPLETED, "finished"),
    (Outcome.FAILED, None),
    (Outcome.STOPPED, None),
)
# Moves for which all pairs of the other values are drawn.
PAIRED = (
    (RunStatus.CLAIMED, REPORTS[0]),
    (RunStatus.CLAIMED, REPORTS[1]),
    (RunStatus.RUNNING, REPORTS[2]),
    (RunStatus.RUNNING, REPORTS[4]),
)
START = datetime.now(UTC)


@dataclass(frozen=True)
class Case:
    """State of a run, its session and its runner, and a report about it; the defaults are plain."""

    status: RunStatus = RunStatus.RUNNING
    report: tuple[Outcome, str | None] = (Outcome.COMPLETED, None)
    token: str | None = "own"
    next: str = "none"
    runner: str = "live"
    sender: str = "holder"
    caller: str = "admin"
    claimed_by: str = "nothing"
    process: str = "none"
    stop: str = "none"
    type: RunType = RunType.START
    run_parent: str | None = None
    session_parent: str | None = None
    mode: ExecutionMode = ExecutionMode.SYNC
    results: str = "none"
    timeout: int | None = None
    earlier: str = "nothing"
    session_status: str | None = None
    last_outcome: str | None = None
    bound: bool = False
    owner: str | None = None
    error: str | None = None


OTHERS: Mapping[str, Sequence[Any]] = {
    "next": ("due", "was due", "delayed", "ready", "earlier"),
    "runner": ("capacity", "without tokens", "left", "told", "told long ago", "silent", "owned"),
    "sender": ("other", "unknown"),
    "caller": tuple(CALLERS)[1:],
    "claimed_by": ("team", "team before", "nobody's"),
    "process": ("same", "other", "same runner before"),
    "stop": ("open", "open for another", "superseded"),
    "type": (RunType.RESUME,),
    "run_parent": ("parent", "own"),
    "session_parent": ("parent", "elder"),
    "mode": (ExecutionMode.ASYNC_CALLBACK,),
    "results": ("waiting", "delivered"),
    "timeout": (60,),
    "earlier": ("claims", "attempt", "end"),
    "session_status": ("stopping", "idle", "failed"),
    "last_outcome": ("idle", "failed"),
    "bound": (True,),
    "owner": ("team", "other"),
    "error": ("boom", AWKWARD, "⚡" * 40_000),
}
PLAIN_ALONE = {
    "next": ("due", "was due", "delayed"),
    "runner": ("capacity", "told"),
    "process": ("same",),
    "type": (RunType.RESUME,),
    "run_parent": ("parent", "own"),
    "session_parent": ("parent", "elder"),
    "results": ("delivered",),
    "timeout": (60,),
    "earlier": ("claims", "attempt", "end"),
    "last_outcome": ("idle", "failed"),
    "bound": (True,),
    "owner": ("team", "other"),
    "error": ("boom", AWKWARD, "⚡" * 40_000),
    "claimed_by": ("team", "team before", "nobody's"),
}


def cases() -> Iterator[Case]:
    for status, report, token, behind in product(
        RunStatus, REPORTS, ("own", "former", "other", None), ("none", *OTHERS["next"])
    ):
        yield Case(status, report, token, behind)
    values = [(name, value) for name, those in OTHERS.items() for value in those]
    for status, report, (name, value) in product((RunStatus.CLAIMED, RunStatus.RUNNING), REPORTS, values):
        yield replace(Case(status, report), **{name: value})
    for (status, report), ((one, first), (other, second)) in product(PAIRED, combinations(values, 2)):
        if one != other:
            yield replace(Case(status, report), **{one: first, other: second})


def is_plain_for_certain(case: Case) -> bool:
    if case.status not in {RunStatus.CLAIMED, RunStatus.RUNNING} or case.token != "own":
        return False
    if case.status is RunStatus.RUNNING and case.report[0] is Outcome.STARTED:
        return False
    default = Case()
    different = [field.name for field in fields(Case)[3:] if getattr(case, field.name) != getattr(default, field.name)]
    return not different or (len(different) == 1 and getattr(case, different[0]) in PLAIN_ALONE.get(different[0], ()))


REGISTRATIONS = {
    name: 100 + number
    for number, name in enumerate(
        ("live", "capacity", "without tokens", "left", "told", "told long ago", "silent", "owned", "other")
    )
}

_AGE = text("""
    UPDATE runners SET
        left_at = CASE WHEN runner_id = 'left' THEN now() END,
        leave_told_at = CASE runner_id WHEN 'told' THEN now() WHEN 'told long ago' THEN now() - interval '1 day' END,
        last_seen = CASE WHEN runner_id = 'silent' THEN now() - interval '30 days' ELSE now() END
""")
_AGE_SESSIONS = text("UPDATE sessions SET created_at = now() - interval '1 hour' WHERE session_id LIKE '%e%'")


def build(conn: Connection, batch: Sequence[Case]) -> list[Report]:
    """Write the rows of the cases, and return their reports."""
    conn.execute(
        insert(runners),
        [
            {
                "runner_id": name,
                "registration": registration,
                "hostname": name,
                "project_dir": "/p",
                "executor_profile": "e",
                "tags": [],
                "told_interval": 60,
                "capacity": 3 if name == "capacity" else None,
                "sends_tokens": name != "without tokens",
                "owner": "team" if name == "owned" else None,
            }
            for name, registration in REGISTRATIONS.items()
        ],
    )
    conn.execute(_AGE)
    elders = [
        {"session_id": name, "incarnation": name, "status": "running", "next_run": 2} for name in ("parent", "elder")
    ]
    rows = {
        sessions: [session_row(case, place) for place, case in enumerate(batch)],
        runs: [row for place, case in enumerate(batch) for row in run_rows(case, place)],
        stop_commands: [row for place, case in enumerate(batch) for row in stop_rows(case, place)],
        child_results: [row for place, case in enumerate(batch) for row in result_rows(case, place)],
    }
    conn.execute(insert(sessions), elders)
    for table, of_it in rows.items():
        if of_it:
            conn.execute(insert(table), of_it)
    conn.execute(_AGE_SESSIONS)
    return [report_of(case, place) for place, case in enumerate(batch)]


def session_row(case: Case, place: int) -> dict[str, Any]:
    shown = {"claimed": "pending", "running": "running", "stopping": "stopping", "pending": "pending"}
    keeper, registration = {
        "none": (None, None),
        "same": (case.runner, REGISTRATIONS[case.runner]),
        "other": ("other", REGISTRATIONS["other"]),
        "same runner before": (case.runner, 7),
    }[case.process]
    return {
        "session_id": f"s{place}",
        "incarnation": f"i{place}",
        "status": case.session_status or shown.get(case.status, case.status.replace("completed", "finished")),
        "last_outcome": case.last_outcome,
        "next_run": 4,
        "owner": case.owner,
        "agent_name": AWKWARD.replace("\0", "").replace("\ud83d", ""),
        "parent_session_id": case.session_parent,
        "runner_id": keeper,
        "registration": registration,
        "bound_token": f"t{place}" if case.bound else None,
    }


def run_rows(case: Case, place: int) -> Iterator[dict[str, Any]]:
    status = case.status
    held = status in IN_HAND or status in TERMINAL
    started = held and status is not RunStatus.CLAIMED
    registration = REGISTRATIONS[case.runner]
    claimed_by = {"nothing": None, "team": "team", "team before": "team", "nobody's": ""}[case.claimed_by]
    ended = case.earlier == "end"
    row = {
        "run_id": f"run{place}",
        "session_id": f"s{place}",
        "session_seq": 2,
        "owner": case.owner,
        "type": case.type.value,
        "parameters": "{}",
        "demands": "{}",
        "profile_id": 1,
        "no_match_timeout_seconds": 300,
        "execution_mode": case.mode.value,
        "parent_session_id": f"s{place}" if case.run_parent == "own" else case.run_parent,
        "status": status.value,
        "ready": status is RunStatus.PENDING,
        "runner_id": case.runner if held else None,
        "registration": registration if held else None,
        "claim_token": f"t{place}" if held else None,
        "claimed_by": claimed_by if held else None,
        "claimed_by_registration": registration if held and case.claimed_by != "team before" else 7,
        "former_holders": ["other"] if case.claimed_by == "team before" else None,
        "fruitless_claims": 2 if case.earlier == "claims" else 0,
        "unheld_beats": 1 if case.earlier == "claims" else 0,
        "attempt": (1 if started else 0) + (1 if case.earlier == "attempt" else 0),
        "max_attempts": 3,
        "run_timeout_seconds": case.timeout,
        "last_ended_token": f"former{place}" if ended else None,
        "last_ended_runner": case.runner if ended else None,
        "last_ended_outcome": "completed" if ended else None,
        "error": "earlier" if case.earlier == "attempt" else None,
        "claimed_at": moment(-60) if held else None,
        "delivered_at": moment(-59) if held and not case.bound else None,
        "started_at": moment(-30) if started else None,
        "completed_at": moment(-10) if status in TERMINAL else None,
        "claim_deadline_at": moment(60) if status is RunStatus.CLAIMED else None,
        "run_deadline_at": moment(600) if status is RunStatus.RUNNING and case.timeout else None,
        "stop_cause": "stop" if status is RunStatus.STOPPING else None,
        "match_deadline_at": moment(100),
        "not_before": None,
    }
    yield row
    if case.next != "none":
        yield from following_rows(case, place, row)


def following_rows(case: Case, place: int, row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    clean: dict[str, Any] = dict.fromkeys(
        (
            *("runner_id", "registration", "claim_token", "claimed_by", "claimed_by_registration", "claimed_at"),
            *("former_holders", "delivered_at", "started_at", "completed_at", "claim_deadline_at"),
            *("run_deadline_at", "stop_cause", "match_deadline_at", "parent_session_id"),
        ),
    )
    base: dict[str, Any] = {**row, **clean}
    waits = {"delayed": moment(1000), "was due": moment(-1000)}.get(case.next)
    yield (
        base
        | {
            "run_id": f"next{place}" if place % 2 else f"before{place}",
            "session_seq": 1 if case.next == "earlier" else 3,
            "type": RunType.RESUME.value,
            "status": "pending",
            "ready": case.next == "ready",
            "attempt": 0,
            "not_before": waits,
        }
    )
    yield (
        base
        | {
            "run_id": f"last{place}",
            "session_seq": 4,
            "status": "pending",
            "ready": False,
            "attempt": 0,
        }
    )


def moment(seconds: int) -> Any:
    return START + timedelta(seconds=seconds)


def stop_rows(case: Case, place: int) -> Iterator[dict[str, Any]]:
    if case.stop != "none":
        yield {
            "runner_id": "other" if case.stop == "open for another" else case.runner,
            "registration": 7,
            "session_id": f"s{place}",
            "run_id": f"run{place}",
            "deadline_at": moment(100),
            "superseded": case.stop == "superseded",
        }


def result_rows(case: Case, place: int) -> Iterator[dict[str, Any]]:
    if case.results != "none":
        yield {
            "child_run_id": f"child{place}",
            "child_session_id": "parent",
            "parent_session_id": f"s{place}",
            "outcome": "completed",
            "body": "{}",
            "delivered_in": f"run{place}" if case.results == "delivered" else None,
        }


def report_of(case: Case, place: int) -> Report:
    token = {"own": f"t{place}", "former": f"former{place}", "other": "t9999999", None: None}[case.token]
    outcome, session_status = case.report
    sender = {"holder": case.runner, "other": "other", "unknown": "unknown"}[case.sender]
    return Report(f"run{place}", sender, outcome, token, case.error, session_status, caller=CALLERS[case.caller])
