"""Serialize rows as the models of app/schemas define them; JSON text of the database is passed on as it is."""

import json
from dataclasses import asdict, fields
from typing import Any, Final

import orjson
from starlette.responses import Response

from app.http.lenient import encode
from models.claims.matching import PROCEDURAL
from models.core.statuses import RunStatus
from models.explanations.reasons import Reason, RunExplanation, RunnerExplanation
from models.feed.run_timeline import RunTimeline
from models.feed.timeline import Event
from models.runners.agents import AgentInfo
from models.runners.listing import RunnerInfo
from models.runs.holds import Hold
from models.runs.results import Result
from models.runs.search_sql import RunSummary
from models.runs.stop import Stopped
from models.runs.submission import Submitted
from models.sessions.tree import Tree
from models.state.runs import Run, iso
from models.webhooks.history import ShownDelivery
from models.webhooks.hooks import Webhook
from runtime.tracing.contexts import execution_traceparent

OK: Final = b'{"ok":true}'
_SUMMARY_FIELDS: Final = tuple(field.name for field in fields(RunSummary))
_SUMMARY_MOMENTS: Final = ("created_at", "claimed_at", "started_at", "completed_at", "timeout_at", "not_before")
_DELIVERY_MOMENTS: Final = ("created_at", "last_attempt_at", "next_at", "ended_at")


class Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return content if isinstance(content, bytes) else encode(content)


def stored(text: str | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)


def frame_with_run(frame: str, run_id: str | None) -> str:
    """Return the frame of a session's event, ``{"data": {…}}``, with the id of its run as its first field.

    The id is inserted into the text: the sender's fields stay as they were stored.
    """
    start = frame.find("{", 1) + 1
    if not start:
        return frame
    comma = "" if frame.startswith("}", start) else ","
    return f'{frame[:start]}"run_id":{encode(run_id).decode()}{comma}{frame[start:]}'


def run_json(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "type": run.type,
        "session_id": run.session_id,
        "agent_name": run.agent_name,
        "parameters": stored(run.parameters),
        "project_dir": run.project_dir,
        "parent_session_id": run.parent_session_id,
        "execution_mode": run.execution_mode,
        "demands": stored(run.demands),
        "status": run.status,
        "runner_id": run.runner_id,
        "error": run.error,
        "created_at": iso(run.created_at),
        "claimed_at": iso(run.claimed_at),
        "started_at": iso(run.started_at),
        "completed_at": iso(run.completed_at),
        "timeout_at": iso(run.timeout_at),
        "attempt": run.attempt,
        "priority": run.priority,
        "not_before": iso(run.not_before),
        "max_attempts": run.max_attempts,
        "labels": run.labels or {},
        "replay_of": run.replay_of,
    }


def summary_json(run: RunSummary) -> dict[str, Any]:
    shown = {name: getattr(run, name) for name in _SUMMARY_FIELDS}
    return shown | {name: iso(shown[name]) for name in _SUMMARY_MOMENTS} | {"labels": run.labels or {}}


def claimed_run_json(run: Run) -> dict[str, Any]:
    """Return a run as the runner that claimed it sees it: with scope and token, ``attempt`` counting this one."""
    shown = run_json(run)
    # Show the claim that the poll made, even if the row has changed since.
    shown["status"] = "claimed"
    shown["attempt"] = run.attempt + 1
    shown["scope"] = stored(run.scope)
    shown["resolved_agent_blueprint"] = stored(run.blueprint)
    shown["claim_token"] = run.claim_token
    traceparent = execution_traceparent(run.traceparent, run.run_id, run.attempt + 1)
    return shown if traceparent is None else {**shown, "traceparent": traceparent}


def timeline_json(timeline: RunTimeline) -> dict[str, Any]:
    attempts = [
        {
            "attempt": attempt.attempt,
            "runner_id": attempt.runner_id,
            "steps": [asdict(step) | {"at": iso(step.at)} for step in attempt.steps],
            "ended_by": attempt.ended_by,
            "error": attempt.error,
            "failure": attempt.failure,
            "log_after": attempt.log_after,
            "log_before": attempt.log_before,
        }
        for attempt in timeline.attempts
    ]
    return {
        "run_id": timeline.run_id,
        "retry": None if timeline.retry is None else asdict(timeline.retry),
        "attempts": attempts,
        "truncated_before": iso(timeline.truncated_before),
    }


def hold_json(hold: Hold) -> dict[str, Any]:
    demands = hold.demands
    return {
        "name": hold.name,
        "run_id": hold.run_id,
        "everything": hold.everything,
        "agent_name": hold.agent_name,
        "demands": None if demands is None else stored(demands.as_json()),
        "note": hold.note,
        "held_by": hold.held_by,
        "created_at": iso(hold.created_at),
    }


def tree_json(tree: Tree) -> dict[str, Any]:
    nodes = [
        {
            "session_id": node.session.session_id,
            "parent_session_id": node.session.parent_session_id,
            "status": node.session.status,
            "agent_name": node.session.agent_name,
            "depth": node.session.depth,
            "created_at": iso(node.session.created_at),
            "runs": node.runs,
            "children": node.children,
        }
        for node in tree.nodes
    ]
    return {"root": tree.root, "nodes": nodes, "truncated": tree.truncated}


def submitted_json(submitted: Submitted) -> dict[str, Any]:
    return {"run_id": submitted.run_id, "session_id": submitted.session_id, "status": submitted.status}


def stopped_json(stopped: Stopped) -> dict[str, Any]:
    cancelled = "Run cancelled before execution" if stopped.status == RunStatus.STOPPED else None
    shown = {
        "session_id": stopped.session_id,
        "run_id": stopped.run_id,
        "status": stopped.status,
        "message": stopped.message or cancelled,
    }
    return {"ok": True} | {name: value for name, value in shown.items() if value is not None}


def result_json(result: Result) -> dict[str, Any]:
    """Return the result of a session or run.

    The data is parsed, not passed on as text: beside a text with lone surrogates another encoder encodes it.
    """
    text, data = result
    return {"result_text": text, "result_data": None if data is None else json.loads(data)}


def event_json(event: Event) -> bytes:
    added = encode({"id": event.id, "feed_cursor": event.feed_cursor, "run_id": event.run_id})
    return added[:-1] + b"," + event.data[1:].encode()


def run_explanation_json(explained: RunExplanation) -> dict[str, Any]:
    return {
        "run_id": explained.run_id,
        **_explanation_json(explained),
        "runners": None if explained.runners is None else asdict(explained.runners),
        "ahead": None if explained.ahead is None else asdict(explained.ahead),
        "as_of": iso(explained.as_of),
    }


def runner_explanation_json(explained: RunnerExplanation) -> dict[str, Any]:
    return {
        "runner_id": explained.runner_id,
        **_explanation_json(explained),
        "runs_in_hand": explained.runs_in_hand,
        "capacity": explained.capacity,
        "polls": explained.polls,
        "ready": asdict(explained.ready),
        "as_of": iso(explained.as_of),
    }


def _explanation_json(explained: RunExplanation | RunnerExplanation) -> dict[str, Any]:
    return {
        "status": explained.status,
        "since": iso(explained.since),
        "headline": explained.headline,
        "reasons": [_reason_json(reason) for reason in explained.reasons],
    }


def _reason_json(reason: Reason) -> dict[str, Any]:
    return {
        "code": reason.code,
        "blocking": reason.blocking,
        "text": reason.text,
        "since": iso(reason.since),
        "until": iso(reason.until),
        "detail": reason.detail,
        "fix": reason.fix,
    }


def runner_json(runner: RunnerInfo) -> dict[str, Any]:
    return {
        "runner_id": runner.runner_id,
        "registered_at": iso(runner.registered_at),
        "last_heartbeat": iso(runner.last_seen),
        "hostname": runner.hostname,
        "project_dir": runner.project_dir,
        "executor_profile": runner.executor_profile,
        "executor": stored(runner.executor),
        "tags": list(runner.tags),
        "require_matching_tags": runner.require_matching_tags,
        "status": runner.status,
        "seconds_since_heartbeat": runner.seconds_since_heartbeat,
        "capacity": runner.capacity,
        "runs_in_hand": runner.runs_in_hand,
        "lost": runner.lost,
        "draining_since": iso(runner.draining_since),
        "drain_reason": runner.drain_reason,
    }


def agent_json(agent: AgentInfo) -> dict[str, Any]:
    """Return the agent without the fields that are null, as clients know agents."""
    shown: dict[str, Any] = {
        "name": agent.name,
        "description": agent.description,
        "type": PROCEDURAL,
        "parameters_schema": stored(agent.parameters_schema),
        "tags": [],
        "capabilities": [],
        "status": "active",
        "created_at": "",
        "modified_at": "",
        "command": agent.command,
        "runner_id": agent.runner_id,
    }
    return {name: value for name, value in shown.items() if value is not None}


def webhook_json(webhook: Webhook) -> dict[str, Any]:
    shown = asdict(webhook) | {"events": list(webhook.events), "labels": webhook.labels or {}}
    return shown | {"created_at": iso(webhook.created_at), "updated_at": iso(webhook.updated_at)}


def delivery_json(delivery: ShownDelivery) -> dict[str, Any]:
    moments = {name: iso(getattr(delivery, name)) for name in _DELIVERY_MOMENTS}
    return asdict(delivery) | moments | {"session_id": delivery.session_id or None}
