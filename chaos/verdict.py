import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Engine, text

from chaos.drains import claims_of_draining_runners
from chaos.ledger import Delivery, Ledger
from chaos.mortals import late_losses
from chaos.schedules import SCHEDULED, faults_of_schedules
from models.core.statuses import TERMINAL, TRANSITIONS, RunStatus
from models.schema.sql import sql
from testkit.recorded_events import RECORDED_EVENTS

_MOST_FINDINGS = 5

_RUNS = text("SELECT run_id, session_id, status FROM runs")
_UNFINISHED = text("""
    SELECT r.run_id, r.status, r.runner_id, extract(epoch FROM clock_timestamp() - l.last_seen) AS silent
    FROM runs r LEFT JOIN runners l USING (runner_id) WHERE r.completed_at IS NULL
""")
# Includes deleted sessions: removed events are kept aside (testkit.removed_events).
_HISTORY = sql(
    """
    SELECT run_id, id, session_id, CAST(frame AS text) AS frame FROM $recorded WHERE kind = 'run_updated'
    UNION ALL
    SELECT run_id, id, session_id, CAST(frame AS text) AS frame FROM removed_events WHERE kind = 'run_updated'
    ORDER BY run_id, id
""",
    recorded=RECORDED_EVENTS,
)
_DELETED = sql("SELECT session_id FROM $recorded WHERE kind = 'session_deleted'", recorded=RECORDED_EVENTS)
_KEYS = text("""
    SELECT labels ->> 'key' AS key, count(*) AS number FROM runs WHERE labels ? 'key' GROUP BY 1 HAVING count(*) > 1
""")
_CARRYING = text("""
    SELECT run_id, session_id, started_at IS NOT NULL AS began, CAST(parameters AS text) AS parameters FROM runs
    WHERE type = 'resume_session' AND CAST(parameters AS text) LIKE '%<agent-callback%'
""")
_CHILDREN = text("""
    SELECT session_id FROM runs WHERE execution_mode = 'async_callback' AND parent_session_id IS NOT NULL
""")
_CONTENTS = sql(
    """
    SELECT frame -> 'data' ->> 'content' AS key FROM $recorded WHERE kind = 'event'
    UNION ALL SELECT frame -> 'data' ->> 'content' FROM removed_events WHERE kind = 'event'
""",
    recorded=RECORDED_EVENTS,
)


@dataclass
class Verdict:
    promise: str
    checked: str
    findings: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        return not self.findings

    def __str__(self) -> str:
        lines = [f"{'held  ' if self.held else 'BROKEN'}  {self.promise} ({self.checked})"]
        lines += [f"          {finding}" for finding in self.findings[:_MOST_FINDINGS]]
        if len(self.findings) > _MOST_FINDINGS:
            lines.append(f"          and {len(self.findings) - _MOST_FINDINGS} more")
        return "\n".join(lines)


@dataclass(frozen=True)
class Line:
    run_id: str
    session_id: str
    shown: dict[str, Any]

    @property
    def status(self) -> RunStatus:
        return RunStatus(self.shown["status"])


def histories(connection: Connection) -> Iterator[tuple[str, list[Line]]]:
    rows = connection.execution_options(yield_per=2000).execute(_HISTORY)
    lines = (Line(row.run_id, row.session_id, json.loads(row.frame)["run"]) for row in rows)
    for run_id, group in groupby(lines, attrgetter("run_id")):
        yield run_id, list(group)


def judge(engine: Engine, ledger: Ledger) -> list[Verdict]:
    judges: Sequence[Callable[[Connection, Ledger], Verdict]] = (
        nothing_acknowledged_is_lost,
        one_owner,
        tokens_fence,
        nothing_hangs,
        dead_runners_lose_their_runs,
        draining_runners_claim_nothing,
        events_are_told_once,
        children_are_told_once,
        times_are_decided_once,
    )
    verdicts = []
    for judge_promise in judges:
        with engine.connect() as connection:
            verdicts.append(judge_promise(connection, ledger))
    return verdicts


def nothing_acknowledged_is_lost(connection: Connection, ledger: Ledger) -> Verdict:
    runs = {row.run_id for row in connection.execute(_RUNS)}
    told = {line.run_id: line.session_id for _, lines in histories(connection) for line in lines[:1]}
    deleted = set(connection.execute(_DELETED).scalars())
    carrying = {row.run_id for row in connection.execute(_CARRYING)}
    accepted = set(ledger.accepted.values())
    findings = list(ledger.contradictions)
    findings += [f"accepted, but unknown: {run_id}" for run_id in accepted - told.keys()]
    gone = told.keys() - runs
    findings += [f"gone, and its session was not deleted: {run_id}" for run_id in gone if told[run_id] not in deleted]
    findings += [f"there, and nothing is told of it: {run_id}" for run_id in runs - told.keys()]
    extra = told.keys() - accepted - carrying - set(connection.execute(SCHEDULED).scalars())
    findings += [f"never submitted: {run_id}" for run_id in extra]
    findings += [f"{row.number} runs for the key {row.key}" for row in connection.execute(_KEYS)]
    findings += [f"deleted without a request: {session_id}" for session_id in deleted - ledger.delete_asked]
    findings += [f"a delete was acknowledged and is not told: {session_id}" for session_id in ledger.deleted - deleted]
    checked = f"{len(accepted)} accepted submissions, {len(runs)} runs, {len(deleted)} deleted sessions"
    return Verdict("Nothing acknowledged is lost or doubled", checked, findings)


def one_owner(connection: Connection, _ledger: Ledger) -> Verdict:
    status_of = {row.run_id: row.status for row in connection.execute(_RUNS)}
    findings: list[str] = []
    number = claims = 0
    for run_id, lines in histories(connection):
        number += 1
        claims += sum(line.status is RunStatus.CLAIMED for line in lines)
        findings += _faults_of(run_id, lines, status_of.get(run_id))
    checked = f"{claims} claims of {number} runs"
    return Verdict("Each run has one owner at a time and ends once", checked, findings)


def _faults_of(run_id: str, lines: Sequence[Line], status: str | None) -> Iterator[str]:
    if lines[0].status is not RunStatus.PENDING:
        yield f"{run_id} begins as {lines[0].status}"
    for before, after in pairwise(lines):
        if after.status not in TRANSITIONS[before.status]:
            yield f"{run_id} went from {before.status} to {after.status}"
        owned = RunStatus.PENDING not in {before.status, after.status}
        if owned and before.shown["runner_id"] != after.shown["runner_id"]:
            yield f"{run_id} went from {before.shown['runner_id']} to {after.shown['runner_id']} without a release"
    ends = sum(line.status in TERMINAL for line in lines)
    # The run of a deleted session may have been cancelled with it, without an event.
    if status is not None and ends != 1:
        yield f"{run_id} ended {ends} times"
    if status is not None and lines[-1].status != status:
        yield f"{run_id} is {status}, and was last told to be {lines[-1].status}"


def tokens_fence(_connection: Connection, ledger: Ledger) -> Verdict:
    """Judge that no token was delivered twice, and no report counted after the run went to another runner.

    A frozen runner or balancer may read an answer late: a claim made for a poll that was sent after another delivery is
    later than that one.
    """
    given: dict[str, list[Delivery]] = {}
    for delivery in ledger.deliveries:
        given.setdefault(delivery.run_id, []).append(delivery)
    doubled = [
        token for token, number in Counter(delivery.token for delivery in ledger.deliveries).items() if number > 1
    ]
    findings = [f"the claim {token} was delivered twice" for token in doubled]
    ends: Counter[str] = Counter()
    for report in ledger.reports:
        if report.code != 200:
            continue
        ends[report.run_id] += report.outcome != "started"
        delivered = max(delivery.at for delivery in given[report.run_id] if delivery.token == report.token)
        later = [other for other in given[report.run_id] if delivered < other.asked and other.at < report.begun]
        if later:
            findings.append(f"{report.outcome} of {report.run_id} counted, though {later[0].runner} had it by then")
    findings += [f"{number} reports of an end of {run_id} counted" for run_id, number in ends.items() if number > 1]
    checked = f"{len(ledger.deliveries)} deliveries, {len(ledger.reports)} reports"
    return Verdict("Reports of former claims are refused", checked, findings)


def nothing_hangs(connection: Connection, _ledger: Ledger) -> Verdict:
    left = connection.execute(_UNFINISHED).all()
    findings = [f"{row.run_id} is {row.status} with {row.runner_id}, silent for {row.silent} s" for row in left]
    return Verdict("No run stays unfinished without a live runner", f"{len(left)} unfinished runs", findings)


def dead_runners_lose_their_runs(connection: Connection, ledger: Ledger) -> Verdict:
    """Judge the bound: twice the runner's lost window, counted in time in which the coordinator served."""
    findings = late_losses(connection, ledger)
    return Verdict("Dead runners lose their runs in time", f"{len(ledger.orphaned)} runs of dead runners", findings)


def draining_runners_claim_nothing(connection: Connection, ledger: Ledger) -> Verdict:
    """Judge claims that began after the drain was acknowledged and before its end was asked for."""
    findings = claims_of_draining_runners(connection, ledger)
    return Verdict("Draining runners claim nothing", f"{len(ledger.drains)} drains", findings)


def events_are_told_once(connection: Connection, ledger: Ledger) -> Verdict:
    told = Counter(row.key for row in connection.execute(_CONTENTS))
    written = [key for keys in ledger.events.values() for key in keys]
    findings = [f"the event {key} is told {told[key]} times" for key in written if told[key] != 1]
    return Verdict("Each event is on the feed once", f"{len(written)} acknowledged events", findings)


def children_are_told_once(connection: Connection, _ledger: Ledger) -> Verdict:
    prompts: dict[str, list[str]] = {}
    for row in connection.execute(_CARRYING):
        if row.began:
            prompts.setdefault(row.session_id, []).append(row.parameters)
    children = {row.session_id for row in connection.execute(_CHILDREN)}
    told = _headings(prompts)
    findings = [
        f"the end of {child} was told {told[child]} times" for child in children | told.keys() if told[child] != 1
    ]
    return Verdict("Each child's end is delivered once", f"{len(children)} children", findings)


def times_are_decided_once(connection: Connection, _ledger: Ledger) -> Verdict:
    number, findings = faults_of_schedules(connection)
    return Verdict("Each time of a schedule is decided once, with its run", f"{number} times", findings)


def _headings(prompts: dict[str, list[str]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for texts in prompts.values():
        for parameters in texts:
            prompt = str(json.loads(parameters)["prompt"])
            for line in prompt.splitlines():
                if line.startswith('<agent-callback session="'):
                    found[line.split('"')[1]] += 1
                elif line.startswith("### Child: "):
                    found[line.removeprefix("### Child: ").split(" ")[0]] += 1
    return found
