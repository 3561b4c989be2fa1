"""Submissions that name agents of the registry, over HTTP: checks, errors, demands and the blueprint in the poll's
answer (PROTOCOL, Agents of the registry).
"""

from collections.abc import Iterator
from typing import Any

import pytest

from models.registries.records import Kind
from runtime.settings import Settings
from tests.support.answer_models import check_fields
from tests.support.db_verbs import DbVerbs
from tests.support.registry import CITY_SCHEMA, add, add_agent, add_script, change, delete
from tests.support.web import PROMPT, WebClient, WebInThread, served, until_ready

CITY = {"city": "Bonn"}
PROCEDURAL: dict[str, Any] = {"executor": {"type": "procedural", "command": "c"}}


@pytest.fixture(params=[True, False], ids=["plain", "verb"])
def either(
    settings: Settings, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WebInThread]:
    """Serve with and without the statements of plain cases; agents may name one variable."""
    monkeypatch.setenv("REGION", "eu")
    monkeypatch.setenv("SECRET", "secret")
    update = {"fast_paths": request.param, "blueprint_environment": ("REGION", "UNSET")}
    with served(settings.model_copy(update=update)) as running:
        until_ready(running)
        yield running


def start(**fields: Any) -> dict[str, Any]:
    return {"type": "start_session", "parameters": PROMPT} | fields


def test_poll_brings_the_blueprint_and_nothing_else_does(either: WebInThread, db: DbVerbs) -> None:
    client = either.client
    add(db, Kind.MCP_SERVER, "files", url="http://files/${scope.tenant}", default_config={"region": "${env.REGION}"})
    add(db, Kind.CAPABILITY, "tools", type="mcp", text="Run ${runtime.run_id}", mcp_servers={"main": {"ref": "files"}})
    add_agent(
        db,
        "helper",
        system_prompt="${params.prompt} ${env.SECRET} ${env.UNSET} ${runtime.session_id}",
        capabilities=["tools"],
        demands={"tags": ["gpu"]},
    )
    runner = client.register(tags=["gpu"])
    client.submit(session_id="parent", scope={"tenant": "t1", "own": 1})
    client.claim(runner)
    body = start(agent_name="helper", session_id="mine", parent_session_id="parent", scope={"own": 2})
    for path in ("/runs", "/runs/batch"):
        answer = client.post(path, body if path == "/runs" else {"runs": [body | {"session_id": "other"}]})
        submitted = answer.json() if path == "/runs" else answer.json()["results"][0]
        shown = client.get(f"/runs/{submitted['run_id']}").json()
        assert shown["demands"] == {"executor_type": "autonomous", "tags": ["gpu"]}
        assert "resolved_agent_blueprint" not in shown
        answer = client.poll(runner, 10)
        check_fields("GET /runner/runs", 200, answer.json())
        run = answer.json()["run"]
        blueprint = run["resolved_agent_blueprint"]
        assert run["scope"] == {"tenant": "t1", "own": 2}
        assert blueprint["system_prompt"] == (
            f"hello ${{env.SECRET}} ${{env.UNSET}} {run['session_id']}\n\n---\n\nRun {run['run_id']}"
        )
        assert blueprint["mcp_servers"] == {"main": {"url": "http://files/t1", "config": {"region": "eu"}}}
        assert (blueprint["name"], blueprint["status"], "script" in blueprint) == ("helper", "active", False)
    client.submit(agent_name="unknown")
    assert client.claim(runner)["resolved_agent_blueprint"] is None


def refusals() -> dict[str, tuple[int, Any]]:
    """Return the status and the answer, or a part of it, for the agent of each name."""
    servers = {"error": "mcp_ref_resolution_failed", "server_name": "s"}
    inline = "Inline format not supported. Use ref format with registry entry."
    return {
        "no-capability": (422, "Capability resolution failed for agent 'no-capability': gone not found"),
        "conflict": (422, "MCP server conflict in agent 'conflict': 's' defined in capability:c, agent"),
        "large": (
            422,
            "Resolution failed for agent 'large': more than 262144 bytes; shorten its texts or its parameters",
        ),
        "no-script": (
            400,
            {
                "error": "script_not_found",
                "message": "Script 'gone' referenced by agent 'no-script' not found",
                "agent_name": "no-script",
                "script_name": "gone",
            },
        ),
        "no-server": (
            400,
            servers | {"ref": "gone", "message": "Failed to resolve MCP server 's' (ref: gone): Not found in registry"},
        ),
        "inline": (
            400,
            servers | {"ref": "(inline)", "message": f"Failed to resolve MCP server 's' (ref: (inline)): {inline}"},
        ),
        "no-config": (
            400,
            {
                "error": "missing_required_mcp_config",
                "message": "MCP server 's' missing required config: token, user",
                "server_name": "s",
                "missing_fields": ["token", "user"],
            },
        ),
    }


def test_agent_that_cannot_be_resolved_refuses_the_run(either: WebInThread, db: DbVerbs) -> None:
    """Leave neither a session nor an idempotency key behind, in a batch as well; take the run once it is mended."""
    client = either.client
    needed = {"token": {"required": True}, "user": {"required": True}}
    add(db, Kind.MCP_SERVER, "files", url="http://files", config_schema=needed, default_config={"user": "${params.u}"})
    add(db, Kind.CAPABILITY, "c", type="mcp", mcp_servers={"s": {"ref": "files"}})
    add_agent(db, "no-capability", capabilities=["gone"])
    add_agent(db, "conflict", capabilities=["c"], mcp_servers={"s": {"ref": "files"}})
    add_agent(db, "large", system_prompt="${params.prompt}" * 100)
    add_agent(db, "no-script", type="procedural", script="gone")
    add_agent(db, "no-server", mcp_servers={"s": {"ref": "gone"}})
    add_agent(db, "inline", mcp_servers={"s": {"type": "http", "url": "http://x"}})
    add_agent(db, "no-config", mcp_servers={"s": {"ref": "files"}})
    prompt = {"prompt": "x" * 10_000}
    expected = refusals()
    for name, (status, detail) in expected.items():
        body = start(agent_name=name, session_id=f"of-{name}", parameters=prompt)
        for _ in range(2):
            answer = client.post("/runs", body, **{"Idempotency-Key": name})
            assert (answer.status_code, answer.json()["detail"]) == (status, detail)
        assert client.get(f"/sessions/of-{name}/status").json() == {"status": "not_existent"}
    runs = [start(agent_name=name, parameters=prompt) for name in expected] + [start()]
    results = client.post("/runs/batch", {"runs": runs}).json()["results"]
    assert [result["code"] for result in results] == [status for status, _ in expected.values()] + [201]
    assert [result["detail"] for result in results[:-1]] == [detail for _, detail in expected.values()]
    change(db, Kind.AGENT, "no-capability", capabilities=["c"], mcp_servers={})
    change(db, Kind.MCP_SERVER, "files", default_config={"user": "u", "token": "t"})
    body = start(agent_name="no-capability", session_id="of-no-capability", parameters=prompt)
    assert client.post("/runs", body, **{"Idempotency-Key": "no-capability"}).status_code == 201


def test_parameters_are_those_of_the_agent_or_of_its_script(either: WebInThread, db: DbVerbs) -> None:
    client = either.client
    add_script(db, "of-city", parameters_schema=CITY_SCHEMA)
    add_script(db, "of-any")
    add_agent(db, "scripted", type="procedural", script="of-city", parameters_schema={"required": ["other"]})
    add_agent(db, "scripted-any", type="procedural", script="of-any", parameters_schema=CITY_SCHEMA)
    add_agent(db, "own", type="procedural", parameters_schema=CITY_SCHEMA)
    add_agent(db, "any", type="procedural")
    add_agent(db, "strict", parameters_schema=CITY_SCHEMA)
    add_agent(db, "prompted", status="inactive")
    takes = {
        "scripted": (CITY, PROMPT, CITY_SCHEMA),
        "scripted-any": (PROMPT, None, None),
        "own": (CITY, {}, CITY_SCHEMA),
        "any": ({}, None, None),
        "strict": (CITY, PROMPT, CITY_SCHEMA),
        "prompted": (PROMPT, CITY, None),
    }
    for name, (good, bad, schema) in takes.items():
        for _ in range(2):
            run = client.get(f"/runs/{client.submit(agent_name=name, parameters=good)['run_id']}").json()
            wanted = "autonomous" if name in {"strict", "prompted"} else "procedural"
            assert run["demands"]["executor_type"] == wanted
        if bad is not None:
            answer = client.post("/runs", start(agent_name=name, parameters=bad))
            detail = answer.json()["detail"]
            assert (answer.status_code, detail["error"]) == (400, "parameter_validation_failed")
            assert detail["agent_name"] == name
            assert schema is None or detail["parameters_schema"] == schema
    # The agent is looked at before the session: its error comes first.
    client.submit(session_id="mine")
    for name, parameters, status in (("strict", PROMPT, 400), ("strict", CITY, 409)):
        assert (
            client.post("/runs", start(agent_name=name, session_id="mine", parameters=parameters)).status_code == status
        )


def test_changed_agent_counts_from_the_answer_on_every_replica(settings: Settings, db: DbVerbs) -> None:
    """Also for a process that remembers the former schema, and for a name that was none."""
    with served(settings) as one, served(settings) as other:
        until_ready(one)
        until_ready(other)
        for web in (one, other):
            web.client.submit(agent_name="late")
        add_agent(db, "late", parameters_schema=CITY_SCHEMA)
        for web in (one, other):
            web.client.submit(agent_name="late", parameters=CITY)
            assert web.client.post("/runs", start(agent_name="late")).status_code == 400
        change(db, Kind.AGENT, "late", parameters_schema={"required": ["country"]})
        for web in (one, other):
            assert web.client.post("/runs", start(agent_name="late", parameters=CITY)).status_code == 400
            web.client.submit(agent_name="late", parameters={"country": "x"})
        delete(db, Kind.AGENT, "late")
        for web in (one, other):
            web.client.submit(agent_name="late")


def test_agent_of_the_registry_comes_before_one_of_a_runner(client: WebClient, db: DbVerbs) -> None:
    runner = client.register("of-agents", agents=[{"name": "both", "command": "c"}], **PROCEDURAL)
    autonomous = client.register()
    add_agent(db, "both", system_prompt="registered")
    client.submit(agent_name="both", additional_demands={"executor_type": "procedural"})
    assert client.poll(runner).status_code == 204
    assert client.claim(autonomous)["resolved_agent_blueprint"]["system_prompt"] == "registered"


def test_resume_takes_the_agent_of_its_session(client: WebClient, db: DbVerbs) -> None:
    """Resolve it as it is now, for the run that resumes; a procedural one is stateless."""
    add_agent(db, "helper", system_prompt="first ${params.prompt}", parameters_schema={"required": ["prompt"]})
    add_agent(db, "other", type="procedural")
    runner = client.register()
    first = client.finished(runner, agent_name="helper", scope={"a": 1})
    change(db, Kind.AGENT, "helper", system_prompt="second ${params.prompt} ${scope.a} ${runtime.run_id}")
    client.resume(first["session_id"], agent_name="other", parameters={"prompt": "again"})
    run = client.claim(runner)
    assert run["resolved_agent_blueprint"]["system_prompt"] == f"second again 1 {run['run_id']}"
    assert run["agent_name"] == "helper"
    procedural = client.register("p", **PROCEDURAL)
    done = client.finished(procedural, agent_name="other")
    answer = client.post("/runs", {"type": "resume_session", "session_id": done["session_id"], "parameters": PROMPT})
    message = "Procedural agents are stateless and cannot be resumed"
    detail = {"error": "procedural_agent_no_resume", "message": message, "agent_name": "other"}
    assert (answer.status_code, answer.json()["detail"]) == (400, detail)


def test_scripts_come_first_in_the_poll_of_a_procedural_runner(client: WebClient, db: DbVerbs) -> None:
    add_script(db, "deploy")
    add_script(db, "report")
    autonomous, runner = client.register(), client.register("p", **PROCEDURAL)
    add_agent(db, "deployer", type="procedural", script="deploy")
    client.submit(agent_name="deployer", parameters={})
    answer = client.poll(runner, 10)
    assert answer.json() == {"sync_scripts": ["deploy", "report"], "remove_scripts": []}
    check_fields("GET /runner/runs", 200, answer.json())
    assert client.claim(runner)["resolved_agent_blueprint"]["script"] == "deploy"
    delete(db, Kind.SCRIPT, "report")
    change(db, Kind.SCRIPT, "deploy", description="changed")
    assert client.poll(runner, 10).json() == {"sync_scripts": ["deploy"], "remove_scripts": ["report"]}
    assert client.poll(runner).status_code == 204
    assert client.poll(autonomous).status_code == 204


def test_parked_poll_is_woken_for_a_script(settings: Settings, db: DbVerbs) -> None:
    """Wake the poll of another process, and long before the re-check."""
    patient = settings.model_copy(update={"recheck_seconds": 600})
    with served(patient) as one, served(patient) as other:
        until_ready(one)
        until_ready(other)
        for web, name in ((one, "here"), (other, "elsewhere")):
            runner = web.client.register(f"p-{name}", **PROCEDURAL)
            # Take the scripts that its registration has it fetch.
            web.client.poll(runner)
            polled = web.client.meanwhile(web.client.poll, runner, 30)
            web.until_parked()
            body = {"name": name, "description": "d", "script_file": "main.py", "script_content": "print()"}
            assert one.client.post("/scripts", body).status_code == 201
            assert polled.result(30).json() == {"sync_scripts": [name], "remove_scripts": []}
