from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import Response

from app.endpoint import Endpoint
from app.http.serializers import Json
from app.openapi.responses import Responses, answer

router = APIRouter(tags=["Registries"], route_class=Endpoint)

EMPTY: Final[Responses] = {200: answer("Nothing is registered", list[Any])}


@router.get("/agents", operation_id="listAgents", responses=EMPTY)
@router.get("/capabilities", operation_id="listCapabilities", responses=EMPTY)
@router.get("/mcp-servers", operation_id="listToolServers", responses=EMPTY)
@router.get("/scripts", operation_id="listScripts", responses=EMPTY)
async def read_registry() -> Response:
    """Return an empty list."""
    return Json(b"[]")
