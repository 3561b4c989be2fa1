"""Compare the hand-written serialisers, and the readers of lenient bodies, with the models of app/schemas."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, get_args

import orjson
import pytest
from pydantic import BaseModel

from app.http import registry_json, serializers
from app.http.lenient import encode
from app.inputs.events import REQUIRED, new_event
from app.inputs.reports import release_of, report_of, report_of_list, runner_id_of
from app.schemas import agents, events, registries, reports, runners, runs, sessions
from models.core.callers import ADMIN
from models.core.statuses import ExecutionMode, Outcome, RunType
from models.feed.timeline import Event
from models.registries import records
from models.runners.agents import AgentInfo
from models.runners.listing import RunnerInfo
from models.runs.release import RELEASED
from models.runs.stop import Stopped
from models.runs.submission import Submitted
from models.state.events_outbox import EVENT_FIELDS
from models.state.runs import Run
from models.state.sessions import Session, session_json

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
RUN = Run(
    run_id="r",
    session_id="s",
    type="start_session",
    agent_name="a",
    parameters='{"prompt":"x"}',
    project_dir="/p",
    parent_session_id="q",
    execution_mode="sync",
    demands='{"hostname":"h","project_dir":"/p","executor_profile":"e","executor_type":"t","tags":["g"]}',
    labels={"k": "v"},
    scope="{}",
    status="running",
    runner_id="l",
    error="e",
    created_at=NOW,
    claimed_at=NOW,
    started_at=NOW,
    completed_at=NOW,
    timeout_at=NOW,
    not_before=NOW,
    attempt=1,
    max_attempts=1,
    priority=0,
    claim_token="t",
    claim_poll_id="p",
    owner="o",
    replay_of="n",
    traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
)
SESSION = Session("s", "idle", NOW, "/p", "a", NOW, "q", "x", "e", "h", "o", 1)
RUNNER = RunnerInfo("l", NOW, NOW, "h", "/p", "e", '{"type":"t"}', ["g"], True, "stale", 1.5, 4, 1, True, NOW, "r")
EVENT = Event(1, "v1.a.1", encode({"data": dict.fromkeys((*EVENT_FIELDS, "truncated"), "x")}).decode(), "r")
HOOKS = records.AgentHooks(records.AgentHook(agent_name="h"), records.AgentHook(agent_name="h"))
DEMANDS = records.RunnerDemands("h", "/p", "e", "t", ("g",))
AGENT = records.Agent(
    "a", "", "procedural", "s", {}, {}, "p", {}, ("k",), (), (), DEMANDS, HOOKS, "active", "t", "t", "c", "r"
)
CAPABILITY = records.Capability("c", "", "text", "s", "t", {}, "t", "t")
SCRIPT = records.Script("s", "", "f", "x", {}, DEMANDS, "t", "t")
SERVER = records.McpServer(id="i", name="n", url="u")
SERIALISED: list[tuple[Callable[[Any], Any], Any, type[BaseModel]]] = [
    (serializers.run_json, RUN, runs.Run),
    (serializers.claimed_run_json, RUN, runs.ClaimedRun),
    (serializers.submitted_json, Submitted("r", "s"), runs.Submitted),
    (serializers.stopped_json, Stopped("s", "r", "stopped", "It has ended"), runs.Stopped),
    (serializers.result_json, ("text", "{}"), runs.Result),
    (serializers.event_json, EVENT, events.Event),
    (serializers.runner_json, RUNNER, runners.Runner),
    (registry_json.registered_agent_json, AGENT, agents.Agent),
    (registry_json.capability_json, CAPABILITY, registries.Capability),
    (registry_json.capability_summary_json, CAPABILITY, registries.CapabilitySummary),
    (registry_json.script_json, SCRIPT, registries.Script),
    (registry_json.script_summary_json, SCRIPT, registries.ScriptSummary),
    (partial(registry_json.mcp_server_json, masked=False), SERVER, registries.McpServer),
    (session_json, SESSION, sessions.Session),
]


@pytest.mark.parametrize(("serialise", "row", "model"), SERIALISED)
def test_serialiser_writes_fields_of_its_model_in_order(
    serialise: Callable[[Any], Any], row: Any, model: type[BaseModel]
) -> None:
    shown = serialise(row)
    written = orjson.loads(shown if isinstance(shown, bytes) else encode(shown))
    assert list(written) == list(model.model_fields), f"{serialise} does not write a {model.__name__}"


def test_agent_of_runner_has_some_fields_of_an_agent_in_order() -> None:
    written = list(serializers.agent_json(AgentInfo("a", "", "{}", "c", "r")))
    assert written == [name for name in agents.Agent.model_fields if name in written]


def test_demands_of_run_are_those_of_submission() -> None:
    assert list(runs.Demands.model_fields) == list(runs.AdditionalDemands.model_fields)


class Noted(dict[str, Any]):
    """Body that notes which of its fields are read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.read: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)


def read_report(body: Noted) -> None:
    report_of(body, "r", runner_id_of(body), Outcome.FAILED)


def read_release(body: Noted) -> None:
    release_of(body, "r", runner_id_of(body), ("body",))


def read_item(body: Noted) -> None:
    report_of_list(body, "l", ("body",))
    body["outcome"] = "released"
    report_of_list(body, "l", ("body",))


def read_event(body: Noted) -> None:
    new_event(body, "s", ADMIN, 10**6, ("body",))


READ: list[tuple[Callable[[Noted], None], type[BaseModel]]] = [
    (read_report, reports.ReportRun),
    (read_release, reports.ReleaseRun),
    (read_item, reports.Report),
    (read_event, events.NewEvent),
]


@pytest.mark.parametrize(("read", "model"), READ)
def test_reader_of_lenient_body_reads_fields_of_its_model(
    read: Callable[[Noted], None], model: type[BaseModel]
) -> None:
    body = Noted(dict.fromkeys(model.model_fields, "x") | {"session_id": "s", "outcome": "failed"})
    read(body)
    assert body.read == set(model.model_fields)


def test_closed_sets_of_models_are_those_of_the_core() -> None:
    assert get_args(reports.Outcome.__value__) == (*Outcome, RELEASED)
    assert get_args(runs.SubmitRun.model_fields["type"].annotation) == tuple(RunType)
    assert get_args(registries.Kind) == tuple(records.AgentType)
    assert get_args(registries.Sort) == tuple(records.CapabilityType)
    assert get_args(registries.SetAgentStatus.model_fields["status"].annotation) == tuple(records.AgentStatus)
    assert get_args(runs.SubmitRun.model_fields["execution_mode"].annotation) == tuple(ExecutionMode)


def test_event_has_the_stored_fields() -> None:
    named = list(events.Event.model_fields)
    assert named == ["id", "feed_cursor", "run_id", *EVENT_FIELDS, "truncated"]
    assert [name for name, field in events.NewEvent.model_fields.items() if field.is_required()] == list(REQUIRED)
