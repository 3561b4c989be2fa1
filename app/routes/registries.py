"""The registries of agents, capabilities, tool servers and scripts: empty until they exist."""

from fastapi import APIRouter
from starlette.responses import Response

from app import docs
from app.endpoint import Endpoint
from app.wire import Json

router = APIRouter(tags=["Registries"], route_class=Endpoint)


@router.get("/agents", responses=docs.EMPTY)
@router.get("/capabilities", responses=docs.EMPTY)
@router.get("/mcp-servers", responses=docs.EMPTY)
@router.get("/scripts", responses=docs.EMPTY)
async def nothing_registered() -> Response:
    """Answer with an empty list."""
    return Json(b"[]")
