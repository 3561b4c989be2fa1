"""Conformance of answers to /openapi.json, for generated calls inside and outside of the schemas."""

from collections.abc import Iterator
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
from runtime.settings import Settings
from tests.support.callers import make_key
from tests.support.db_verbs import DbVerbs
from tests.support.web import WebInThread, served, until_ready

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
# Streams do not end and polls are held: the tests of the feed and of polls check their answers.
HELD = {"/sse/sessions"}
CALLS = 8


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
        faults = list(found_faults(web, headers, existing_names(db)))
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


def test_answers_have_exactly_described_fields(quick: Settings, db: DbVerbs) -> None:
    """Compare field names, so that a field that vanishes is noticed."""
    with served(quick) as web:
        until_ready(web)
        runner_id = web.client.register()
        run = web.client.started(runner_id)
        session = f"/sessions/{run['session_id']}"
        event = {"event_type": "message", "session_id": run["session_id"], "timestamp": "t"}
        assert web.client.post(f"{session}/events", event).status_code == 201
        paths = web.client.get("/openapi.json").json()["paths"]
        one_run = shape_of(paths, "/runs/{run_id}")
        claimed = shape_of(paths, "/runner/runs")["anyOf"][0]["properties"]["run"]
        assert set(run) == set(claimed["properties"])
        assert set(web.client.get(f"/runs/{run['run_id']}").json()) == set(one_run["properties"])
        shown = web.client.get(session).json()["session"]
        assert set(shown) == set(shape_of(paths, "/sessions/{session_id}")["properties"]["session"]["properties"])
        for path, name in (("/runs", "runs"), ("/sessions", "sessions"), ("/runners", "runners")):
            assert set(web.client.get(path).json()[name][0]) == set(item_of(paths, path, name))
        stored = web.client.get(f"{session}/events").json()["events"]
        described = set(item_of(paths, "/sessions/{session_id}/events", "events"))
        assert all(set(fields) == described for fields in stored)


def shape_of(paths: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the schema of the answer to a GET of the path."""
    shape: dict[str, Any] = paths[path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    return shape


def item_of(paths: dict[str, Any], path: str, name: str) -> dict[str, Any]:
    """Return the properties of one item of a list."""
    fields: dict[str, Any] = shape_of(paths, path)["properties"][name]["items"]["properties"]
    return fields


def found_faults(web: WebInThread, headers: dict[str, str], things: dict[str, str], only: str = "") -> Iterator[str]:
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
            ask(operation, headers, names)
        except (AssertionError, BaseExceptionGroup) as fault:
            yield f"{operation.label}: {fault}"


def ask(operation: Any, headers: dict[str, str], names: dict[str, str]) -> None:
    """Make some calls of one endpoint; raise what the checks find."""

    @hypothesis.seed(6)
    @hypothesis.settings(
        max_examples=CALLS,
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
