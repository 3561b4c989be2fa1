"""Conformance of answers to /openapi.json, for generated calls inside and outside of the schemas."""

from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.http.serializers import run_json
from app.routes import runs
from models.core.callers import Caller, Role
from models.state.runs import Run as Row
from runtime.settings import Settings
from tests.support.answer_models import check_fields, has_fields_of_its_model
from tests.support.callers import make_key
from tests.support.db_verbs import DbVerbs
from tests.support.web import PROMPT, WebInThread, served, until_ready

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    has_fields_of_its_model,
]
# Streams do not end and polls are held: the tests of the feed and of polls check their answers.
HELD = {"/sse/sessions"}
# Generated calls of each endpoint: more without authentication, where no endpoint refuses before it reads.
CALLS, CALLS_OF_OTHERS = 8, 3


@pytest.fixture
def quick(settings: Settings) -> Settings:
    return settings.model_copy(update={"poll_timeout_seconds": 0, "report_hold_seconds": 1})


# Attributes that schemathesis sets within a strategy of its own.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@pytest.mark.parametrize("role", [None, *Role])
def test_every_endpoint_answers_as_described(quick: Settings, db: DbVerbs, role: Role | None) -> None:
    """Call in every role, and without authentication: no 5xx, no undocumented status, no other shape."""
    asked = quick.model_copy(update={"auth": role is not None, "public_docs": True, "submissions_per_minute": 0})
    headers = {} if role is None else {"Authorization": f"Bearer {make_key(db, role, 'ann')}"}
    with served(asked) as web:
        until_ready(web)
        calls = CALLS if role is None else CALLS_OF_OTHERS
        faults = list(found_faults(web, headers, existing_names(db), calls=calls))
    assert not faults, "\n\n".join(faults[:10])


def existing_names(db: DbVerbs) -> dict[str, str]:
    """Return the ids of an existing session, run and runner of the caller; calls that end them come last."""
    started = db.start(caller=Caller(Role.USER, "ann"))
    return {"session_id": started.session_id, "run_id": started.run_id, "runner_id": db.runner().runner_id}


def test_field_of_undescribed_type_is_noticed(quick: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Require a type for each field of an answer, and the list of those always present."""
    broken: list[tuple[str, Any]] = [("attempt", "1"), ("status", "done"), ("runner_id", 5), ("labels", None)]
    with served(quick) as web:
        until_ready(web)
        things = existing_names(db)
        for name, value in broken:
            with monkeypatch.context() as patch:
                patch.setattr(runs, "run_json", lambda run, name=name, value=value: run_json(run) | {name: value})
                (fault,) = found_faults(web, {}, things, only="GET /runs/{run_id}")
            assert name in fault


def test_additional_field_and_other_order_are_noticed(
    quick: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refuse what the schemas of /openapi.json allow and the models do not."""
    broken: list[Callable[[Row], dict[str, Any]]] = [
        lambda run: run_json(run) | {"new": 1},
        lambda run: dict(reversed(run_json(run).items())),
    ]
    with served(quick) as web:
        until_ready(web)
        things = existing_names(db)
        for serialise in broken:
            with monkeypatch.context() as patch:
                patch.setattr(runs, "run_json", serialise)
                (fault,) = found_faults(web, {}, things, only="GET /runs/{run_id}")
            assert "200 of GET /runs/{run_id} is no Run" in fault


def test_answers_to_busy_runner_have_fields_of_their_models(quick: Settings) -> None:
    """Check the answers that generated calls do not lead to: assigned runs, stops, items of lists."""
    with served(quick) as web:
        until_ready(web)
        runner_id = web.client.register()
        submitted = web.client.submit()
        session = f"/sessions/{submitted['session_id']}"
        event = {
            "event_type": "message",
            "session_id": submitted["session_id"],
            "timestamp": "t",
            "truncated": ["role"],
        }
        reports = [{"run_id": submitted["run_id"], "outcome": outcome} for outcome in ("started", "started", "x")]

        def answer(method: str, route: str, path: str = "", body: Any = None) -> Any:
            response = web.client.http.request(method, path or route, json=body)
            assert response.is_success, response.text
            check_fields(f"{method} {route}", response.status_code, response.json())
            return response.json()

        poll = f"/runner/runs?runner_id={runner_id}&wait=10"
        assert answer("GET", "/runner/runs", poll)["run"]
        answer("POST", "/runner/runs/report", body={"runner_id": runner_id, "reports": reports})
        answer("POST", "/sessions/{session_id}/events", f"{session}/events", [event, {}])
        for path in ("/runs", "/sessions", "/runners"):
            answer("GET", path)
            answer("GET", path, f"{path}?limit=1")
        assert answer("GET", "/sessions/{session_id}/events", f"{session}/events")["events"]
        answer("POST", "/runner/heartbeat", body={"runner_id": runner_id, "holding": ["run_of_another"]})
        answer("POST", "/runs/batch", body={"runs": [{"type": "start_session", "parameters": PROMPT}, {}]})
        assert answer("GET", "/runner/runs", f"{poll}&max=5")["runs"]
        answer("POST", "/sessions/{session_id}/stop", f"{session}/stop")
        assert answer("GET", "/runner/runs", poll)["stop_sessions"]


def found_faults(
    web: WebInThread, headers: dict[str, str], things: dict[str, str], only: str = "", calls: int = CALLS
) -> Iterator[str]:
    """Return the faults in answers to generated calls on existing and other resources.

    The calls are the same in every run.
    """
    schema = schemathesis.openapi.from_dict(web.client.get("/openapi.json").json())
    schema.config.base_url = web.client.url
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        if operation.path in HELD or (only and operation.label != only):
            continue
        names = {name: value for name, value in things.items() if f"{{{name}}}" in operation.path}
        try:
            ask(operation, headers, names, calls)
        except (AssertionError, BaseExceptionGroup) as fault:
            yield f"{operation.label}: {fault}"


def ask(operation: Any, headers: dict[str, str], names: dict[str, str], calls: int) -> None:
    """Make some calls of one endpoint; raise what the checks find."""

    @hypothesis.seed(6)
    @hypothesis.settings(
        max_examples=calls,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def call(case: Any) -> None:
        case.query = {name: value for name, value in (case.query or {}).items() if name != "wait"}
        case.call_and_validate(headers=headers, checks=CHECKS)
        if names:
            case.path_parameters = {**case.path_parameters, **names}
            case.call_and_validate(headers=headers, checks=CHECKS)

    call()
