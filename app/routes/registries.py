"""Serve the registries of agents, capabilities, tool servers and scripts: empty until they exist."""

from fastapi import APIRouter
from starlette.responses import Response

from app.endpoint import Endpoint
from app.http.serializers import Json
from app.openapi import answers

router = APIRouter(tags=["Registries"], route_class=Endpoint)


@router.get("/agents", responses=answers.EMPTY)
@router.get("/capabilities", responses=answers.EMPTY)
@router.get("/mcp-servers", responses=answers.EMPTY)
@router.get("/scripts", responses=answers.EMPTY)
async def nothing_registered() -> Response:
    """Return an empty list."""
    return Json(b"[]")
