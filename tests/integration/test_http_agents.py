"""Agents of runners over HTTP: registration, the registry, and submissions that name one (PROTOCOL, Agents of runners)."""

from collections.abc import Iterator
from typing import Any

import pytest

from models.core.callers import Role
from models.runners.agents import MOST_AGENTS_OF_OWNER
from runtime.settings import Settings
from tests.support.answer_models import check_fields
from tests.support.callers import client_with, make_key, web_with_auth
from tests.support.db_verbs import DbVerbs
from tests.support.runner_agents import add_agents
from tests.support.web import PROMPT, WebClient, WebInThread, served, until_ready

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
REPORTER: dict[str, Any] = {
    "name": "reporter",
    "description": "Writes the report",
    "command": "report --weekly",
    "parameters_schema": SCHEMA,
    "output_schema": {"type": "object"},
}
PROCEDURAL: dict[str, Any] = {"executor": {"type": "procedural", "command": "c"}}
CITY = {"city": "Bonn"}


def provide(client: WebClient, *agents: Any, name: str = "host", **fields: Any) -> str:
    given = [agent if isinstance(agent, dict) else {"name": agent, "command": "c"} for agent in agents]
    return client.register(name, agents=given, **{**PROCEDURAL, **fields})


def run_of(client: WebClient, answer: Any) -> Any:
    return client.get(f"/runs/{answer['run_id']}").json()


# The registry


def test_agents_of_runners_are_listed_by_name(client: WebClient) -> None:
    """Show no output schema, and no field that is null."""
    runner = provide(client, REPORTER, "archiver")
    answer = client.get("/agents").json()
    reporter = {
        "name": "reporter",
        "description": "Writes the report",
        "type": "procedural",
        "parameters_schema": SCHEMA,
        "tags": [],
        "capabilities": [],
        "status": "active",
        "created_at": "",
        "modified_at": "",
        "command": "report --weekly",
        "runner_id": runner,
    }
    plain = {name: value for name, value in reporter.items() if name != "parameters_schema"}
    assert answer == [plain | {"name": "archiver", "description": "", "command": "c"}, reporter]
    check_fields("GET /agents", 200, answer)
    for raw in ({}, {"raw": "true"}, {"raw": "false"}):
        one = client.get("/agents/reporter", **raw)
        assert (one.status_code, one.json()) == (200, reporter)
        check_fields("GET /agents/{name}", 200, one.json())


def test_any_tag_leaves_agents_of_runners_out(client: WebClient) -> None:
    provide(client, REPORTER)
    assert client.get("/agents", tags="internal,external").json() == []
    assert len(client.get("/agents", tags=" , ").json()) == 1


@pytest.mark.parametrize("name", ["none", "a%00b", "REPORTER", "..%2f", "x" * 500])
def test_unknown_agent_is_404(client: WebClient, name: str) -> None:
    provide(client, REPORTER)
    answer = client.get(f"/agents/{name}")
    assert answer.status_code == 404
    if name == "none":
        assert answer.json() == {"detail": "Agent not found: none"}
    assert client.get("/agents/reporter", raw="perhaps").status_code == 422


def test_agents_go_when_their_runner_leaves(client: WebClient) -> None:
    runner = provide(client, REPORTER)
    client.http.delete(f"/runners/{runner}?self=true")
    assert client.get("/agents").json() == []
    assert client.get("/agents/reporter").status_code == 404


# Registration


def test_name_of_another_runner_is_a_collision(client: WebClient) -> None:
    runner = provide(client, REPORTER)
    answer = client.try_register("other", agents=[{"name": "reporter", "command": "c"}])
    assert answer.status_code == 409
    assert answer.json()["detail"] == {
        "error": "agent_name_collision",
        "message": "Another runner provides an agent named 'reporter'; nothing was registered",
        "agent_name": "reporter",
        "existing_runner_id": runner,
    }
    assert len(client.get("/runners").json()["runners"]) == 1


@pytest.mark.parametrize(
    ("agent", "at"),
    [
        ({"command": "c"}, "name"),
        ({"name": "", "command": "c"}, "name"),
        ({"name": "-a", "command": "c"}, "name"),
        ({"name": "a b", "command": "c"}, "name"),
        ({"name": "a\n", "command": "c"}, "name"),
        ({"name": "ä", "command": "c"}, "name"),
        ({"name": "a" * 61, "command": "c"}, "name"),
        ({"name": "a\u0000", "command": "c"}, "name"),
        ({"name": "a"}, "command"),
        ({"name": "a", "command": ""}, "command"),
        ({"name": "a", "command": "c" * 1025}, "command"),
        ({"name": "a", "command": "c", "description": "d" * 4097}, "description"),
        ({"name": "a", "command": "c", "parameters_schema": []}, "parameters_schema"),
        ({"name": "a", "command": "c", "parameters_schema": {"type": "objekt"}}, "parameters_schema"),
        ({"name": "a", "command": "c", "parameters_schema": {"$ref": "http://x/y"}}, "parameters_schema"),
        ({"name": "a", "command": "c", "output_schema": {"pattern": "("}}, "output_schema"),
    ],
)
def test_malformed_agent_is_422(client: WebClient, agent: Any, at: str) -> None:
    answer = client.try_register(agents=[{"name": "good", "command": "c"}, agent])
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "agents", 1, at]
    assert client.get("/agents").json() == []


def test_agents_are_bounded_and_have_distinct_names(client: WebClient) -> None:
    twice = client.try_register(agents=[{"name": "a", "command": "c"}] * 2)
    assert (twice.status_code, twice.json()["detail"][0]["loc"]) == (422, ["body", "agents", 1, "name"])
    many = [{"name": f"a{place}", "command": "c"} for place in range(65)]
    assert client.try_register(agents=many).status_code == 422
    assert client.try_register(agents=many[:64]).status_code == 200


def test_more_agents_than_an_owner_may_have_are_422(client: WebClient, db: DbVerbs) -> None:
    add_agents(db, provide(client), MOST_AGENTS_OF_OWNER)
    answer = client.try_register("second", agents=[{"name": "a", "command": "c"}], **PROCEDURAL)
    (fault,) = answer.json()["detail"]
    assert (answer.status_code, fault["type"], fault["loc"]) == (422, "too_many_agents", ["body", "agents"])


def test_agents_of_a_runner_of_another_type_are_warned_of(client: WebClient) -> None:
    agents = [{"name": "a", "command": "c"}]
    assert "procedural" in client.try_register(agents=agents).json()["warning"]
    assert "warning" not in client.try_register("other", agents=[], **PROCEDURAL).json()


# Submissions


@pytest.fixture(params=[True, False], ids=["plain", "verb"])
def either(settings: Settings, request: pytest.FixtureRequest) -> Iterator[WebInThread]:
    """Serve with and without the statements of plain cases."""
    with served(settings.model_copy(update={"fast_paths": request.param})) as running:
        until_ready(running)
        yield running


def test_run_of_an_agent_goes_to_its_runner_with_checked_parameters(either: WebInThread) -> None:
    client = either.client
    other, runner = client.register("autonomous"), provide(client, REPORTER)
    for _ in range(2):
        submitted = client.submit(agent_name="reporter", parameters=CITY)
        demands = run_of(client, submitted)["demands"]
        assert (demands["hostname"], demands["executor_type"]) == ("host", "procedural")
        assert client.poll(other).status_code == 204
        run = client.claim(runner)
        assert (run["run_id"], run["parameters"]) == (submitted["run_id"], CITY)


def test_parameters_that_the_schema_refuses_are_400(either: WebInThread) -> None:
    client = either.client
    provide(client, REPORTER)
    for parameters in (PROMPT, {"city": 5}):
        for _ in range(2):
            body = {"type": "start_session", "session_id": "mine", "agent_name": "reporter", "parameters": parameters}
            answer = client.post("/runs", body, **{"Idempotency-Key": "k"})
            assert answer.status_code == 400
            detail = answer.json()["detail"]
            assert (detail["error"], detail["agent_name"]) == ("parameter_validation_failed", "reporter")
            assert detail["parameters_schema"] == SCHEMA
            assert {tuple(sorted(error)) for error in detail["validation_errors"]} == {
                ("message", "path", "schema_path")
            }
            assert client.get("/sessions/mine/status").json() == {"status": "not_existent"}
    assert client.submit(session_id="mine", agent_name="reporter", parameters=CITY)["session_id"] == "mine"


def test_agent_without_a_schema_takes_any_object(either: WebInThread) -> None:
    provide(either.client, "a")
    for parameters in ({}, PROMPT, {"x": [1, {"y": None}]}):
        assert (
            run_of(either.client, either.client.submit(agent_name="a", parameters=parameters))["parameters"]
            == parameters
        )


def test_other_parameters_without_such_an_agent_are_refused_as_before(either: WebInThread) -> None:
    for name in (None, "", "unknown"):
        body = {"type": "start_session", "agent_name": name, "parameters": CITY}
        answer = either.client.post("/runs", body)
        assert answer.status_code == 400
        assert answer.json()["detail"]["agent_name"] == "(no agent)"
    assert run_of(either.client, either.client.submit(agent_name="unknown"))["demands"]["executor_type"] == "autonomous"


def test_changed_schema_counts_from_the_answer_of_its_registration_on_every_replica(settings: Settings) -> None:
    """Let one process remember the former schema, and register at another one."""
    with served(settings) as one, served(settings) as other:
        until_ready(one)
        until_ready(other)
        provide(one.client, REPORTER, instance_id="i")
        one.client.submit(agent_name="reporter", parameters=CITY)
        provide(other.client, REPORTER | {"parameters_schema": {"required": ["country"]}}, instance_id="i")
        for web in (one, other):
            body = {"type": "start_session", "agent_name": "reporter", "parameters": CITY}
            answer = web.client.post("/runs", body)
            assert answer.status_code == 400
            assert answer.json()["detail"]["parameters_schema"] == {"required": ["country"]}
            web.client.submit(agent_name="reporter", parameters={"country": "x"})
        provide(other.client, instance_id="i")
        assert run_of(one.client, one.client.submit(agent_name="reporter"))["demands"]["executor_type"] == "autonomous"


def test_key_of_a_run_of_an_agent_is_answered_with_its_run(either: WebInThread) -> None:
    """Also when the agent takes no such parameters any more."""
    provide(either.client, REPORTER, instance_id="i")
    body = {"type": "start_session", "agent_name": "reporter", "parameters": CITY}
    key = {"Idempotency-Key": "k"}
    first = either.client.post("/runs", body, **key)
    assert first.status_code == 201
    provide(either.client, REPORTER | {"parameters_schema": {"required": ["country"]}}, instance_id="i")
    again = either.client.post("/runs", body, **key)
    assert (again.status_code, again.json()) == (200, first.json())


def test_batch_answers_each_item_and_keeps_their_order(either: WebInThread) -> None:
    """Accept the child of a session that an item before it starts, whose parameters had to be checked first."""
    provide(either.client, REPORTER, "a")
    start = {"type": "start_session", "agent_name": "reporter", "parameters": CITY}
    items = [
        start | {"session_id": "mine"},
        start | {"parameters": {"city": 5}},
        {"type": "start_session", "parameters": PROMPT, "parent_session_id": "mine"},
        {"type": "start_session", "parameters": CITY, "agent_name": "unknown"},
        {"type": "start_session", "parameters": PROMPT, "parent_session_id": "nobody"},
        {"type": "start_session", "parameters": {}, "agent_name": "a"},
        {"type": "resume_session", "session_id": "mine", "parameters": PROMPT},
    ]
    results = either.client.post("/runs/batch", {"runs": items}).json()["results"]
    assert [result["code"] for result in results[:6]] == [201, 400, 201, 400, 404, 201]
    assert results[1]["detail"]["agent_name"] == "reporter"
    assert results[3]["detail"]["agent_name"] == "(no agent)"
    assert results[6]["code"] == 400
    assert results[6]["detail"]["error"] == "procedural_agent_no_resume"
    assert run_of(either.client, results[0])["demands"]["hostname"] == "host"


def test_session_of_a_procedural_agent_cannot_be_resumed(client: WebClient) -> None:
    runner = provide(client, "a")
    run = client.finished(runner, agent_name="a")
    body = {"type": "resume_session", "session_id": run["session_id"], "parameters": PROMPT}
    answer = client.post("/runs", body)
    assert (answer.status_code, answer.json()["detail"]) == (
        400,
        {
            "error": "procedural_agent_no_resume",
            "message": "Procedural agents are stateless and cannot be resumed",
            "agent_name": "a",
        },
    )


def test_replay_of_an_agents_run_checks_changed_parameters(client: WebClient) -> None:
    run = client.finished(provide(client, REPORTER), agent_name="reporter", parameters=CITY)
    path = f"/runs/{run['run_id']}/replay"
    same = client.post(path, {})
    assert same.status_code == 201
    assert run_of(client, same.json())["demands"] == run["demands"]
    assert client.post(path, {"changes": {"parameters": {"city": "Berlin"}}}).status_code == 201
    refused = client.post(path, {"changes": {"parameters": {"city": 5}}})
    assert (refused.status_code, refused.json()["detail"]["agent_name"]) == (400, "reporter")
    lost = client.post(path, {"changes": {"parameters": CITY, "agent_name": "unknown"}})
    assert (lost.status_code, lost.json()["detail"]["agent_name"]) == (400, "(no agent)")


@pytest.mark.parametrize(
    "changes", [{"agent_name": "unknown"}, {"agent_name": None}, {"additional_demands": {"tags": ["x"]}}]
)
def test_replay_with_another_agent_or_demands_needs_a_prompt_where_no_agent_takes_the_parameters(
    client: WebClient, changes: dict[str, Any]
) -> None:
    runner = provide(client, REPORTER)
    run = client.finished(runner, agent_name="reporter", parameters=CITY)
    client.http.delete(f"/runners/{runner}?self=true")
    path = f"/runs/{run['run_id']}/replay"
    refused = client.post(path, {"changes": changes})
    assert (refused.status_code, refused.json()["detail"]["agent_name"]) == (400, "(no agent)")
    assert client.post(path, {"changes": {**changes, "parameters": PROMPT}}).status_code == 201
    assert client.post(path, {}).status_code == 201


def test_bulk_of_replays_takes_prompts_only(client: WebClient) -> None:
    """Refuse others: no schema is checked for each of its runs."""
    run = client.finished(provide(client, REPORTER), agent_name="reporter", parameters=CITY)
    body = {"action": "replay", "run_ids": [run["run_id"]], "changes": {"parameters": CITY}, "dry_run": True}
    assert client.post("/bulk", body).status_code == 400


def test_large_parameters_are_checked_and_bounded(client: WebClient) -> None:
    provide(client, REPORTER)
    client.submit(agent_name="reporter", parameters={"city": "x" * 200_000})
    body = {"type": "start_session", "agent_name": "reporter", "parameters": {"city": [1] * 100_000}}
    answer = client.post("/runs", body)
    assert answer.status_code == 400
    assert len(answer.json()["detail"]["validation_errors"]) == 1


# Owners


def test_other_owners_use_an_agent_and_learn_nothing_of_its_runner(settings: Settings, db: DbVerbs) -> None:
    with (
        web_with_auth(settings) as web,
        client_with(web.client.url, make_key(db, Role.RUNNER, "build")) as build,
        client_with(web.client.url, make_key(db, Role.RUNNER, "other")) as other,
        client_with(web.client.url, make_key(db, Role.USER, "ann")) as ann,
        client_with(web.client.url, make_key(db, Role.ADMIN)) as root,
    ):
        runner = provide(build, REPORTER)
        for client in (build, root):
            (agent,) = client.get("/agents").json()
            assert (agent["runner_id"], agent["command"]) == (runner, "report --weekly")
        for client in (other, ann):
            (agent,) = client.get("/agents").json()
            assert agent == client.get("/agents/reporter").json()
            assert {"runner_id", "command"}.isdisjoint(agent)
            check_fields("GET /agents/{name}", 200, agent)
        taken = other.try_register("elsewhere", agents=[{"name": "reporter", "command": "c"}])
        assert taken.status_code == 409
        assert set(taken.json()["detail"]) == {"error", "message", "agent_name", "existing_runner_id"}
        submitted = ann.submit(agent_name="reporter", parameters=CITY)
        assert build.claim(runner)["run_id"] == submitted["run_id"]
        assert web.client.get("/agents").status_code == 401
