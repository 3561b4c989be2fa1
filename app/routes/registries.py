from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.auth.authenticate import credential_of
from app.auth.caller_limits import caller_of
from app.endpoint import Endpoint
from app.http.problems import Missing
from app.http.query import Flag, Text
from app.http.serializers import Json, agent_json
from app.openapi.document import query
from app.openapi.responses import AWAY, INVALID, Responses, answer, problem
from app.schemas.agents import Agent
from app.web import Web
from models.core.callers import Caller
from models.core.storable_text import storable
from models.runners.agents import AgentInfo, list_agents

router = APIRouter(tags=["Registries"], route_class=Endpoint)

EMPTY: Final[Responses] = {200: answer("Nothing is registered", list[Any])}
TAGS: Final = Text("tags", "Only agents with all of these tags, separated by commas; those of runners have none")
RAW: Final = Flag("raw", "Without effect: agents of runners refer to nothing")


@router.get(
    "/agents",
    operation_id="listAgents",
    openapi_extra=query(TAGS),
    responses={200: answer("Agents of runners, by name", list[Agent]), **AWAY},
)
async def read_agents(request: Request, web: Web, caller: Caller) -> Response:
    """List the agents that registered runners provide, also lost ones, until they leave or are removed."""
    tags = TAGS.of(request.query_params)
    if tags is not None and any(tag.strip() for tag in tags.split(",")):
        return Json(b"[]")

    async def fetch() -> list[AgentInfo]:
        return await web.reads.autocommit(list_agents, caller.subject, most=web.settings.list_limit)

    found = await web.lists.make(caller_of(credential_of(request)), fetch)
    return Json([agent_json(agent) for agent in found])


@router.get(
    "/agents/{name}",
    operation_id="getAgent",
    openapi_extra=query(RAW),
    responses={
        200: answer("The agent", Agent),
        404: problem("No runner provides an agent of this name", "Agent not found: reporter"),
        **INVALID,
        **AWAY,
    },
)
async def read_agent(name: str, request: Request, web: Web, caller: Caller) -> Response:
    """Return an agent that a registered runner provides."""
    RAW.of(request.query_params)
    asked = storable(name)
    found = await web.reads.autocommit(list_agents, caller.subject, most=1, name=asked)
    if not found:
        raise Missing(f"Agent not found: {asked}")
    return Json(agent_json(found[0]))


@router.get("/capabilities", operation_id="listCapabilities", responses=EMPTY)
@router.get("/mcp-servers", operation_id="listToolServers", responses=EMPTY)
@router.get("/scripts", operation_id="listScripts", responses=EMPTY)
async def read_registry() -> Response:
    """Return an empty list."""
    return Json(b"[]")
