"""Export and import of agents and capabilities as an archive."""

import asyncio
from datetime import UTC, datetime
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.auth.authenticate import credential_of
from app.auth.caller_limits import caller_of
from app.endpoint import Endpoint
from app.http.bodies import read_body
from app.http.headers import header_of
from app.http.multipart import file_part
from app.http.problems import BadRequest, accepted
from app.http.serializers import Json
from app.inputs.config_files import ConfigEntries, config_archive, entries_of
from app.inputs.config_trees import ArchiveTree, BadArchive
from app.openapi.responses import AWAY, INVALID, TOO_LARGE, answer, problem
from app.schemas.registries import ConfigImported
from app.web import Web
from models.core.callers import Caller
from models.registries.imports import ImportEntries
from models.registries.read import list_entries
from models.registries.records import Agent, Capability, Kind

router = APIRouter(prefix="/config", tags=["Registries"], route_class=Endpoint)

GZIP: Final = "application/gzip"
FORM: Final = "multipart/form-data"
KINDS: Final = (Kind.AGENT, Kind.CAPABILITY)
FIELD: Final = {"type": "object", "required": ["file"], "properties": {"file": {"type": "string", "format": "binary"}}}


@router.get(
    "/export",
    operation_id="exportConfig",
    responses={200: {"description": "Agents and capabilities as .tar.gz", "content": {GZIP: {}}}, **AWAY},
)
async def export_config(request: Request, web: Web) -> Response:
    """Return all agents and capabilities of one moment as an archive that `POST /config/import` takes.

    Its members are `agents/NAME/…` and `capabilities/NAME/…`; scripts and MCP servers are not in it.
    """

    async def fetch() -> bytes:
        found = await web.reads.autocommit(list_entries, *KINDS)
        agents = [entry for entry in found if isinstance(entry, Agent)]
        capabilities = [entry for entry in found if isinstance(entry, Capability)]
        return await asyncio.to_thread(config_archive, agents, capabilities)

    packed = await web.lists.make(caller_of(credential_of(request)), fetch)
    name = f"config-{datetime.now(UTC):%Y%m%d-%H%M%S}.tar.gz"
    return Response(packed, 200, {"Content-Disposition": f'attachment; filename="{name}"'}, GZIP)


@router.post(
    "/import",
    operation_id="importConfig",
    openapi_extra={"requestBody": {"required": True, "content": {FORM: {"schema": FIELD}}}},
    responses={
        200: answer("What was imported", ConfigImported),
        400: problem("The archive cannot be used", "Invalid archive: contains unsafe paths"),
        **TOO_LARGE,
        **INVALID,
        **AWAY,
    },
)
async def import_config(request: Request, web: Web, caller: Caller) -> Response:
    """Replace all agents, all capabilities, or both, by those of an archive (.tar.gz, field `file`): all or nothing.

    A folder `agents/` replaces the agents and `capabilities/` the capabilities; without it they stay. An archive with
    an entry that cannot be used is refused as a whole.
    """
    raw = await read_body(request, web.settings.batch_bytes)
    file = file_part(header_of(request.scope, b"content-type") or "", raw, "file")
    if not file.file_name.endswith((".tar.gz", ".tgz")):
        raise BadRequest("Invalid file type. Please upload a .tar.gz or .tgz file.")
    kinds, found = await web.parser.run(lambda _: _read(file.content), raw)
    done = accepted(await web.verbs.import_entries.one(ImportEntries(found.entries, caller, kinds)))
    return Json(
        {
            "message": "Configuration imported successfully",
            "agents_imported": _number(found, Kind.AGENT),
            "capabilities_imported": _number(found, Kind.CAPABILITY),
            "agents_replaced": done.before[Kind.AGENT],
            "capabilities_replaced": done.before[Kind.CAPABILITY],
        }
    )


def _read(packed: bytes) -> tuple[list[Kind], ConfigEntries]:
    try:
        tree = ArchiveTree(packed)
    except BadArchive as bad:
        raise BadRequest(str(bad)) from bad
    kinds = [kind for kind in KINDS if tree.has(kind)]
    if not kinds:
        raise BadRequest("Invalid archive: must contain 'agents/' and/or 'capabilities/' directory")
    found = entries_of(tree, kinds)
    if found.refused:
        first = found.refused[0]
        raise BadRequest(f"Invalid archive: {first.kind}/{first.name}: {first.reason}")
    if not found.entries:
        raise BadRequest("Invalid archive: no valid agents or capabilities found")
    return kinds, found


def _number(found: ConfigEntries, kind: Kind) -> int:
    return sum(entry.kind is kind for entry in found.entries)
