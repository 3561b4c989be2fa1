"""Build the spans of an ended run from what Postgres kept of it: the run, its waits and its executions."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from models.core.statuses import TERMINAL, RunStatus
from models.tracing.ended_runs import EndedRun, RunStep
from runtime.tracing.contexts import TraceContext, execution_span_id, parse_traceparent, run_span_id
from runtime.tracing.spans import Span, SpanKind

LONGEST_ERROR: Final = 200
RUN: Final = "run"
QUEUED: Final = "queued"
EXECUTION: Final = "execution"


def spans_of(run: EndedRun) -> list[Span]:
    """Return the spans of a run, itself first. Those of its executions are the ones that its jobs were told of."""
    submitted = parse_traceparent(run.traceparent)
    if submitted is None:
        return []
    own = submitted.child(run_span_id(run.run_id))
    whole = Span(
        RUN,
        SpanKind.CONSUMER,
        own,
        submitted,
        _nanoseconds(run.created_at),
        _nanoseconds(run.completed_at),
        _attributes(run),
        error=_line(run.error or run.status) if run.status == RunStatus.FAILED else None,
    )
    return [whole, *_parts(run, own)]


def _parts(run: EndedRun, own: TraceContext) -> Iterator[Span]:
    waits_since: datetime | None = run.created_at if run.not_before is None else max(run.created_at, run.not_before)
    running: RunStep | None = None
    for step in _steps(run):
        if step.status != RunStatus.STOPPING and running is not None and step is not running:
            yield _execution(run, own, running, step)
            running = None
        if step.status == RunStatus.PENDING:
            waits_since = max(step.at, waits_since or step.at)
        elif waits_since is not None:
            yield _queued(own, waits_since, step.at)
            waits_since = None
        if step.status == RunStatus.RUNNING:
            running = step


def _steps(run: EndedRun) -> Iterator[RunStep]:
    """Yield the changes of status: those of the events or, of a run without, the last claim and start, and its end.

    Events have the moment at which their transaction began, the row the later one of the change itself.
    """
    yield from (step for step in run.steps if step.status not in TERMINAL)
    if not run.steps:
        yield from _claim_and_start(run)
    yield RunStep(run.completed_at, run.status, run.attempt, run.runner_id, run.error)


def _claim_and_start(run: EndedRun) -> Iterator[RunStep]:
    if run.claimed_at is not None:
        yield RunStep(run.claimed_at, RunStatus.CLAIMED, run.attempt, run.runner_id, None)
    if run.started_at is not None:
        yield RunStep(run.started_at, RunStatus.RUNNING, run.attempt, run.runner_id, None)


def _queued(own: TraceContext, since: datetime, until: datetime) -> Span:
    # A run may be stopped before its earliest start.
    began, ended = _nanoseconds(min(since, until)), _nanoseconds(until)
    return Span(QUEUED, SpanKind.INTERNAL, own.child(), own, began, ended)


def _execution(run: EndedRun, own: TraceContext, began: RunStep, ended: RunStep) -> Span:
    context = own.child(execution_span_id(run.run_id, began.attempt))
    attributes: dict[str, str | int] = {"coordinator.run.id": run.run_id, "coordinator.run.attempt": began.attempt}
    if began.runner_id is not None:
        attributes["coordinator.runner.id"] = began.runner_id
    ended_well = ended.status in TERMINAL and ended.status != RunStatus.FAILED
    return Span(
        EXECUTION,
        SpanKind.INTERNAL,
        context,
        own,
        _nanoseconds(began.at),
        _nanoseconds(ended.at),
        attributes,
        error=None if ended_well else _line(ended.reason or ended.status),
    )


def _attributes(run: EndedRun) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "messaging.system": "coordinator",
        "messaging.operation.type": "process",
        "messaging.message.id": run.run_id,
        "coordinator.run.id": run.run_id,
        "coordinator.run.type": run.type,
        "coordinator.run.status": run.status,
        "coordinator.run.attempts": run.attempt,
        "coordinator.session.id": run.session_id,
    }
    if run.agent_name is not None:
        attributes["gen_ai.agent.name"] = run.agent_name
    return attributes


def _line(reason: str) -> str:
    return (reason.splitlines() or [""])[0][:LONGEST_ERROR]


def _nanoseconds(moment: datetime) -> int:
    # As a float the seconds since the epoch would lose the microseconds' last digit.
    return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1000
