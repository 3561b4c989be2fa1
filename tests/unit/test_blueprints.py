"""Resolve blueprints without a database: dependencies, usage of scripts, placeholders, MCP servers, demands."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.claims.matching import Demands
from models.core.callers import ADMIN
from models.core.statuses import RunType
from models.registries.blueprints.demands import demands_of_agent
from models.registries.blueprints.dependencies import MOST_BYTES, ResolutionError, Unresolved, resolve_dependencies
from models.registries.blueprints.mcp_references import McpConfigMissing, McpReferenceUnresolved
from models.registries.blueprints.placeholders import Substitution, TooLarge, Values, has_placeholder
from models.registries.blueprints.resolve import RegistryAgent, resolve_blueprint
from models.registries.blueprints.script_usage import script_usage
from models.registries.records import Agent, Kind, ResolutionInputs, Script
from models.runs.submission import NewRun, demands_of_run, resume_demands
from tests.support.registry import entry

SERVER = {"main": {"ref": "files"}}
FULL_SCHEMA = {
    "properties": {
        "to": {"enum": ["slack", 5], "description": "Where to"},
        "dry": {"type": "boolean", "default": False},
        "n": {"type": "integer"},
        "ids": {"type": "array"},
        "text": {},
        "any": True,
    },
    "required": ["to", "dry"],
}
FULL_USAGE = """## Local Script: send
**Description:** About send

**Usage:**
```bash
uv run --script scripts/send/main.py --to <slack|5> --dry [--n <N>] [--ids <value1,value2,...>] [--text <text>] [--any <any>]
```

**Arguments:**
- `--to` (required) One of: slack, 5 - Where to
- `--dry` (required) (boolean) [default: False]
- `--n` (optional) (integer)
- `--ids` (optional) (array)
- `--text` (optional)
- `--any` (optional)"""
BARE_USAGE = """## Local Script: send
**Description:** About send

**Usage:**
```bash
uv run --script scripts/send/main.py
```"""


def script(name: str = "send", **fields: Any) -> Script:
    made = entry(Kind.SCRIPT, name, script_file="main.py", **fields)
    assert isinstance(made, Script)
    return made


def inputs(agent: dict[str, Any], *others: tuple[Kind, str, dict[str, Any]]) -> ResolutionInputs:
    """Build the agent ``a`` and the entries from which it is resolved."""
    found: dict[Kind, dict[str, Any]] = {kind: {} for kind in Kind}
    for kind, name, fields in others:
        found[kind][name] = entry(kind, name, **fields)
    made = entry(Kind.AGENT, "a", **agent)
    assert isinstance(made, Agent)
    return ResolutionInputs(made, found[Kind.CAPABILITY], found[Kind.SCRIPT], found[Kind.MCP_SERVER])


def capability(name: str, **fields: Any) -> tuple[Kind, str, dict[str, Any]]:
    return Kind.CAPABILITY, name, fields


def server(name: str = "files", **fields: Any) -> tuple[Kind, str, dict[str, Any]]:
    return Kind.MCP_SERVER, name, {"url": "http://files", **fields}


SEND = (Kind.SCRIPT, "send", {"script_file": "main.py"})


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (FULL_SCHEMA, FULL_USAGE),
        (None, BARE_USAGE),
        ({}, BARE_USAGE),
        ({"properties": []}, BARE_USAGE),
        ({"properties": {}, "required": "to"}, BARE_USAGE),
    ],
)
def test_usage_of_a_script_names_its_arguments(schema: Any, expected: str) -> None:
    assert script_usage(script(parameters_schema=schema)) == expected


def test_begins_of_placeholders_without_an_end_are_read_once() -> None:
    """A search that read the rest of the text from each of them would take minutes."""
    endless = "${" * 125_000
    substitution = Substitution(Values(params={"a": "x"}), most=1_000_000)
    assert substitution.text("${params.a}" + endless) == "x" + endless
    assert not has_placeholder(endless)
    assert has_placeholder(endless + "}")


def test_capabilities_are_merged_in_their_order() -> None:
    given = inputs(
        {"system_prompt": "Own", "capabilities": ["two", "one", "none"], "mcp_servers": {"own": {"ref": "x"}}},
        capability("one", text="One", mcp_servers=SERVER),
        capability("two", text="Two", script="send"),
        capability("none"),
        SEND,
    )
    agent = resolve_dependencies(given)
    assert isinstance(agent, Agent)
    assert agent.system_prompt == f"Own\n\n---\n\nTwo\n\n---\n\n{BARE_USAGE}\n\n---\n\nOne"
    assert list((agent.mcp_servers or {}).items()) == [("main", {"ref": "files"}), ("own", {"ref": "x"})]
    assert agent.capabilities == ("two", "one", "none")
    empty = resolve_dependencies(inputs({"capabilities": ["none"], "script": "send"}, capability("none"), SEND))
    assert isinstance(empty, Agent)
    assert (empty.system_prompt, empty.mcp_servers, empty.script) == (None, None, None)


def test_schema_of_a_procedural_agent_is_its_scripts() -> None:
    own, other = {"type": "object"}, {"required": ["x"]}
    agent = {"type": "procedural", "script": "send", "parameters_schema": own, "capabilities": ["unknown"]}
    for of_script, expected in ((other, other), (None, own), ({}, own)):
        resolved = resolve_dependencies(
            inputs(agent, (Kind.SCRIPT, "send", {"script_file": "f", "parameters_schema": of_script}))
        )
        assert isinstance(resolved, Agent)
        assert (resolved.parameters_schema, resolved.script) == (expected, "send")


@pytest.mark.parametrize(
    ("given", "kind", "text", "of_list"),
    [
        (
            inputs({"capabilities": ["c"]}),
            Unresolved.CAPABILITY,
            "Capability resolution failed: c not found",
            "Capability resolution failed for agent 'a': c not found",
        ),
        (
            inputs({"capabilities": ["c"]}, capability("c", script="s")),
            Unresolved.SCRIPT,
            "Script resolution failed: s not found",
            "Script resolution failed for agent 'a': s not found",
        ),
        (
            inputs({"type": "procedural", "script": "s"}),
            Unresolved.SCRIPT,
            "Script resolution failed: s not found",
            "Script resolution failed for agent 'a': s not found",
        ),
        (
            inputs(
                {"capabilities": ["c", "d"]}, capability("c", mcp_servers=SERVER), capability("d", mcp_servers=SERVER)
            ),
            Unresolved.MCP_SERVER,
            "MCP server name conflict: 'main' defined in capability:c, capability:d",
            "MCP server conflict in agent 'a': 'main' defined in capability:c, capability:d",
        ),
        (
            inputs({"capabilities": ["c"], "mcp_servers": SERVER}, capability("c", mcp_servers=SERVER)),
            Unresolved.MCP_SERVER,
            "MCP server name conflict: 'main' defined in capability:c, agent",
            "MCP server conflict in agent 'a': 'main' defined in capability:c, agent",
        ),
        (
            inputs({"capabilities": ["c"] * 100}, capability("c", text="x" * 10_000)),
            Unresolved.SIZE,
            f"Resolution failed: more than {MOST_BYTES} bytes; shorten its texts or its parameters",
            f"Resolution failed for agent 'a': more than {MOST_BYTES} bytes; shorten its texts or its parameters",
        ),
    ],
)
def test_missing_or_contradictory_dependency_is_named(
    given: ResolutionInputs, kind: Unresolved, text: str, of_list: str
) -> None:
    error = resolve_dependencies(given)
    assert isinstance(error, ResolutionError)
    assert (error.kind, error.text(), error.text_of_list()) == (kind, text, of_list)


VALUES = Values(
    params={"city": "Bonn", "on": True, "of": {"a": 1}, "none": None, "evil": "${env.TOKEN}", "a.b": "dotted"},
    scope={"tenant": "t1"},
    env={"TOKEN": "secret"},
    runtime={"run_id": "run_1", "session_id": "ses_1"},
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${params.city}-${scope.tenant}", "Bonn-t1"),
        ("${params.on} ${params.of}", "True {'a': 1}"),
        ("${params.a.b}", "dotted"),
        ("${runtime.run_id}/${runtime.session_id}", "run_1/ses_1"),
        ("${env.TOKEN}${env.PATH}", "secret${env.PATH}"),
        ("${runner.orchestrator_mcp_url}", "${runner.orchestrator_mcp_url}"),
        (
            "${params.none}${params.unknown}${other.x}${params}${}${",
            "${params.none}${params.unknown}${other.x}${params}${}${",
        ),
        ("${params.evil}", "${env.TOKEN}"),
        ("$${params.city}}", "$Bonn}"),
        ("${runtime.other}${params.${scope.tenant}}", "${runtime.other}${params.${scope.tenant}}"),
    ],
)
def test_placeholders_are_filled_in_once(text: str, expected: str) -> None:
    assert Substitution(VALUES, 1000).text(text) == expected


def test_all_texts_of_a_value_are_filled_in_and_no_key() -> None:
    given = {"${params.city}": ["${params.city}", 5, None, {"x": "${scope.tenant}"}]}
    assert Substitution(VALUES, 1000).value(given) == {"${params.city}": ["Bonn", 5, None, {"x": "t1"}]}


TEXTS = st.text(st.sampled_from("ab$}"), max_size=20) | st.sampled_from(["${params.a}", "${scope.b}" * 3, "${params.a"])


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    value=st.lists(TEXTS | st.lists(TEXTS, max_size=3) | st.dictionaries(TEXTS, TEXTS, max_size=3), max_size=4),
    a=st.text(st.sampled_from("x${}params.a"), max_size=60),
    most=st.integers(0, 400),
)
def test_filled_in_texts_are_no_longer_than_allowed(value: Any, a: str, most: int) -> None:
    """Refuse what would be longer, and only if texts with their placeholders and values are."""
    values = Values(params={"a": a}, scope={"b": {"deep": a}})
    try:
        filled = Substitution(values, most).value(value)
    except TooLarge:
        whole = Substitution(values, 10**9).value(value)
        assert _length(value) + _length(whole) > most
    else:
        assert _length(filled) <= most


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    return sum(map(_length, value.values() if isinstance(value, dict) else value))


def test_value_that_is_named_often_is_refused_without_being_written_out() -> None:
    agent = RegistryAgent(inputs({"system_prompt": "${params.p}" * 20_000}))
    outcome = resolve_blueprint(agent, Values(params={"p": "x" * 200_000}))
    assert isinstance(outcome, ResolutionError)
    assert outcome.kind is Unresolved.SIZE


SCHEMA = {"token": {"required": True}, "region": {"required": True}, "note": {}}


@pytest.mark.parametrize(
    ("servers", "entries", "expected"),
    [
        ({"s": {"ref": "files"}}, [server()], {"s": {"url": "http://files", "config": {}}}),
        (
            {"s": {"ref": "files", "config": {"region": "${params.city}", "note": None}}},
            [server(config_schema=SCHEMA, default_config={"token": "${env.TOKEN}", "region": "eu", "n": {"x": 1}})],
            {
                "s": {
                    "url": "http://files",
                    "config": {"token": "secret", "region": "Bonn", "n": {"x": 1}, "note": None},
                }
            },
        ),
        (
            {"s": {"ref": "files", "config": {"region": "", "token": 0}}},
            [server(url="http://${scope.tenant}", config_schema=SCHEMA)],
            {"s": {"url": "http://t1", "config": {"region": "", "token": 0}}},
        ),
        ({"s": {"ref": "gone"}}, [], McpReferenceUnresolved("s", "gone", "Not found in registry")),
        (
            {"s": {"type": "http", "url": "x"}},
            [],
            McpReferenceUnresolved("s", "(inline)", "Inline format not supported. Use ref format with registry entry."),
        ),
        (
            {"s": {"ref": "files", "config": {"token": "Bearer ${runner.x}", "region": None}}},
            [server(config_schema=SCHEMA, default_config={"region": "eu"})],
            McpConfigMissing("s", ("token", "region")),
        ),
        # No value of a parameter makes a placeholder that counts.
        (
            {"s": {"ref": "files", "config": {"x": "${params.evil}"}}},
            [server()],
            {"s": {"url": "http://files", "config": {"x": "${env.TOKEN}"}}},
        ),
    ],
)
def test_servers_are_resolved_by_the_registry(servers: Any, entries: Any, expected: Any) -> None:
    outcome = resolve_blueprint(RegistryAgent(inputs({"mcp_servers": servers}, *entries)), VALUES)
    if isinstance(expected, dict):
        assert isinstance(outcome, str)
        assert json.loads(outcome)["mcp_servers"] == expected
    else:
        assert outcome == expected


def test_blueprint_is_the_agent_without_nulls() -> None:
    agent = {
        "system_prompt": "Hello \ud800 \x00 ${params.city}",
        "demands": {"hostname": "h", "tags": []},
        "hooks": {"on_run_start": {"agent_name": "b"}},
        "parameters_schema": {"default": None},
    }
    outcome = resolve_blueprint(RegistryAgent(inputs(agent)), VALUES)
    assert isinstance(outcome, str)
    assert json.loads(outcome) == {
        "name": "a",
        "description": "About a",
        "type": "autonomous",
        "system_prompt": "Hello \ud800 \x00 Bonn",
        "tags": [],
        "capabilities": [],
        "demands": {"hostname": "h", "tags": []},
        "hooks": {"on_run_start": {"agent_name": "b", "type": "agent", "on_error": "continue", "timeout_seconds": 300}},
        "parameters_schema": {"default": None},
        "status": "active",
        "created_at": "",
        "modified_at": "",
    }


def test_demands_are_merged_in_one_order() -> None:
    """Affinity, script, agent, its type, then those of the request; tags are united."""
    given = inputs(
        {"type": "procedural", "script": "send", "demands": {"hostname": "a", "project_dir": "/a", "tags": ["a"]}},
        (
            Kind.SCRIPT,
            "send",
            {"script_file": "f", "demands": {"hostname": "s", "executor_profile": "", "tags": ["s"]}},
        ),
    )
    agent = RegistryAgent(given)
    asked = Demands("mine", "/mine", "mine", "autonomous", ("x",))
    assert agent.demands == Demands("s", "/a", None, "procedural", ("a", "s"))
    assert demands_of_agent(given.agent, None) == Demands("a", "/a", None, "procedural", ("a",))
    item = NewRun("r", None, "s", ADMIN, RunType.START, "{}", additional_demands=asked)
    assert demands_of_run(item, None, agent) == Demands("s", "/a", "mine", "procedural", ("a", "s", "x"))
    assert resume_demands("home", "p", Demands(tags=("x",)), agent) == Demands(
        "home", "/a", "p", "procedural", ("a", "s", "x")
    )
    assert resume_demands("home", None, Demands("mine"), agent).hostname == "s"
    assert resume_demands("home", None, Demands("mine")) == Demands("mine", executor_type="autonomous")
