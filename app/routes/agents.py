from collections.abc import Sequence
from typing import Any, Final, cast

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.auth.authenticate import credential_of
from app.auth.caller_limits import caller_of
from app.endpoint import Endpoint
from app.http.bodies import checked, strict_body
from app.http.lenient import encode
from app.http.problems import Missing, accepted
from app.http.query import Flag, Text
from app.http.registry_json import registered_agent_json
from app.http.serializers import Json, agent_json
from app.inputs.registries import check_name, fields_of
from app.openapi.document import body, query
from app.openapi.responses import AWAY, INVALID, TOO_LARGE, Responses, answer, problem
from app.schemas.agents import Agent
from app.schemas.registries import ChangeAgent, CreateAgent, SetAgentStatus
from app.web import Web
from models.core.callers import Caller
from models.core.ids import new_id
from models.core.storable_text import storable
from models.registries.blueprints.dependencies import ResolutionError, resolve_dependencies
from models.registries.changes import new_entry
from models.registries.read import get_entry, list_resolution_inputs, read_resolution_inputs
from models.registries.records import Agent as RegisteredAgent
from models.registries.records import Kind
from models.registries.write import ChangeEntry, CreateEntry, DeleteEntry, EntryWrite
from models.runners.agents import AgentInfo, list_agents

router = APIRouter(prefix="/agents", tags=["Registries"], route_class=Endpoint)

# Bytes of a list: a capability may be part of many agents.
MOST_LISTED: Final = 16 * 1024 * 1024

TAGS: Final = Text("tags", "Only agents with all of these tags, separated by commas; those of runners have none")
RAW: Final = Flag("raw", "Show an agent of the registry as it was written, without what it refers to")
NO_AGENT: Final[Responses] = {404: problem("No agent of this name", "Agent not found: reporter")}
NO_ENTRY: Final[Responses] = {404: problem("No agent of the registry has this name", "Agent not found: reporter")}
UNRESOLVED: Final[Responses] = {
    422: problem("It cannot be resolved, or the request is invalid", "Capability resolution failed: search not found")
}


@router.get(
    "",
    operation_id="listAgents",
    openapi_extra=query(TAGS, RAW),
    responses={
        200: answer("Agents of the registry by name, then those of runners by name", list[Agent]),
        422: problem("An agent cannot be resolved", "Capability resolution failed for agent 'A': search not found"),
        **AWAY,
    },
)
async def read_agents(request: Request, web: Web, caller: Caller) -> Response:
    """List all agents, each with its capabilities merged, and those that registered runners provide.

    One that cannot be resolved fails the list, unless it is asked for as written. Agents of runners are listed, also of
    lost ones, until the runner leaves or is removed.
    """
    raw = RAW.of(request.query_params)
    tags = [tag.strip() for tag in (TAGS.of(request.query_params) or "").split(",") if tag.strip()]

    async def fetch() -> list[bytes]:
        registered = await web.reads.autocommit(_shown, tags, resolved=not raw)
        if tags:
            return registered
        found = await web.reads.autocommit(list_agents, caller.subject, most=web.settings.list_limit)
        return registered + [encode(agent_json(agent)) for agent in found]

    shown = await web.lists.make(caller_of(credential_of(request)), fetch)
    return Json(b"[" + b",".join(shown) + b"]")


def _shown(connection: Connection, tags: Sequence[str], *, resolved: bool) -> list[bytes]:
    shown = list[bytes]()
    size = 0
    for inputs in list_resolution_inputs(connection):
        agent = resolve_dependencies(inputs) if resolved else inputs.agent
        if isinstance(agent, ResolutionError):
            raise HTTPException(422, agent.text_of_list())
        if set(tags) <= set(agent.tags):
            shown.append(encode(registered_agent_json(agent)))
            size += len(shown[-1])
        if size > MOST_LISTED:
            raise HTTPException(422, f"The agents have more than {MOST_LISTED} bytes together: ask by tags, or for one")
    return shown


@router.get(
    "/{name}",
    operation_id="getAgent",
    openapi_extra=query(RAW),
    responses={200: answer("The agent", Agent), **NO_AGENT, **UNRESOLVED, **AWAY},
)
async def read_agent(name: str, request: Request, web: Web, caller: Caller) -> Response:
    """Return an agent of the registry, with its capabilities merged unless it is asked for as written; else that of a
    runner.
    """
    raw = RAW.of(request.query_params)
    asked = storable(name)
    found = await web.reads.autocommit(_raw if raw else _one_resolved, asked)
    if isinstance(found, ResolutionError):
        raise HTTPException(422, found.text())
    if found is not None:
        return Json(registered_agent_json(found))
    provided: list[AgentInfo] = await web.reads.autocommit(list_agents, caller.subject, most=1, name=asked)
    if not provided:
        raise Missing(f"Agent not found: {asked}")
    return Json(agent_json(provided[0]))


def _raw(connection: Connection, name: str) -> RegisteredAgent | ResolutionError | None:
    return cast("RegisteredAgent | None", get_entry(connection, Kind.AGENT, name))


def _one_resolved(connection: Connection, name: str) -> RegisteredAgent | ResolutionError | None:
    inputs = read_resolution_inputs(connection, name)
    return None if inputs is None else resolve_dependencies(inputs)


@router.post(
    "",
    operation_id="createAgent",
    status_code=201,
    openapi_extra=body(CreateAgent),
    responses={
        201: answer("The agent, as written", Agent),
        400: problem("The name cannot be used", "Agent name is required"),
        409: problem("The name is taken", "Agent already exists: reporter"),
        **TOO_LARGE,
        **INVALID,
        **AWAY,
    },
)
async def create_agent(request: Request, web: Web, caller: Caller) -> Response:
    """Create an agent. Capabilities, script and MCP servers that it names need not exist yet."""
    given = checked(CreateAgent, await strict_body(request, web.parser, web.settings.submission_bytes))
    check_name(Kind.AGENT, given.name)
    entry = new_entry(Kind.AGENT, await fields_of(given, web.parser))
    return await _written(web, CreateEntry(Kind.AGENT, given.name, entry, new_id("write"), caller), 201)


@router.patch(
    "/{name}",
    operation_id="changeAgent",
    openapi_extra=body(ChangeAgent),
    responses={200: answer("The agent, as written", Agent), **NO_ENTRY, **TOO_LARGE, **INVALID, **AWAY},
)
async def change_agent(name: str, request: Request, web: Web, caller: Caller) -> Response:
    """Set fields of an agent: null keeps a field, an empty value removes it. Other fields keep what others write."""
    given = checked(ChangeAgent, await strict_body(request, web.parser, web.settings.submission_bytes))
    change = await fields_of(given, web.parser)
    return await _written(web, ChangeEntry(Kind.AGENT, storable(name), change, caller))


@router.patch(
    "/{name}/status",
    operation_id="setAgentStatus",
    openapi_extra=body(SetAgentStatus),
    responses={200: answer("The agent, as written", Agent), **NO_ENTRY, **TOO_LARGE, **INVALID, **AWAY},
)
async def set_status(name: str, request: Request, web: Web, caller: Caller) -> Response:
    """Mark an agent as active or inactive. Clients show it; runs of both are accepted."""
    given = checked(SetAgentStatus, await strict_body(request, web.parser, web.settings.submission_bytes))
    change: dict[str, Any] = {"status": given.status}
    return await _written(web, ChangeEntry(Kind.AGENT, storable(name), change, caller))


@router.delete(
    "/{name}",
    operation_id="deleteAgent",
    status_code=204,
    responses={204: {"description": "The agent is deleted"}, **NO_ENTRY, **AWAY},
)
async def delete_agent(name: str, web: Web, caller: Caller) -> Response:
    """Delete an agent of the registry. Those of runners go with their runner."""
    accepted(await web.verbs.write_entries.one(DeleteEntry(Kind.AGENT, storable(name), caller)))
    return Response(status_code=204)


async def _written(web: Web, write: EntryWrite, status: int = 200) -> Response:
    written = accepted(await web.verbs.write_entries.one(write))
    return Json(registered_agent_json(cast("RegisteredAgent", written.entry)), status)
