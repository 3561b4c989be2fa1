"""Capabilities, scripts and MCP servers, which agents name."""

from typing import Final, cast

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.auth.authenticate import credential_of
from app.auth.caller_limits import caller_of
from app.endpoint import Endpoint
from app.http.bodies import checked, strict_body
from app.http.problems import VerbRefused, accepted
from app.http.registry_json import (
    capability_json,
    capability_summary_json,
    mcp_server_json,
    script_json,
    script_summary_json,
)
from app.http.serializers import Json
from app.inputs.config_files import script_archive
from app.inputs.registries import check_name, fields_of
from app.openapi.document import body
from app.openapi.responses import AWAY, INVALID, TOO_LARGE, Responses, answer, problem
from app.schemas import registries as schemas
from app.web import Web
from models.core.callers import Caller, Role
from models.core.errors import EntryNotFound
from models.core.ids import new_id
from models.core.storable_text import storable
from models.registries.changes import NOUNS, new_entry
from models.registries.read import get_entry, list_entries
from models.registries.records import Capability, Entry, Kind, McpServer, Script
from models.registries.write import ChangeEntry, CreateEntry, DeleteEntry, EntryWrite

router = APIRouter(tags=["Registries"], route_class=Endpoint)

GZIP: Final = "application/gzip"
NO_CAPABILITY: Final[Responses] = {404: problem("No such capability", "Capability not found: search")}
NO_SCRIPT: Final[Responses] = {404: problem("No such script", "Script not found: report")}
NO_SERVER: Final[Responses] = {404: problem("No such MCP server", "MCP server not found: atlassian")}
RULES: Final[Responses] = {400: problem("It breaks a rule", "Capability type 'text' cannot have 'script'")}
GONE: Final[Responses] = {204: {"description": "It is deleted"}}


@router.get(
    "/capabilities",
    operation_id="listCapabilities",
    responses={200: answer("All capabilities, by name", list[schemas.CapabilitySummary]), **AWAY},
)
async def read_capabilities(request: Request, web: Web) -> Response:
    """List all capabilities, without their texts."""
    found = cast("list[Capability]", await _all(request, web, Kind.CAPABILITY))
    return Json([capability_summary_json(entry) for entry in found])


@router.get(
    "/capabilities/{name}",
    operation_id="getCapability",
    responses={200: answer("The capability", schemas.Capability), **NO_CAPABILITY, **AWAY},
)
async def read_capability(name: str, web: Web) -> Response:
    """Return a capability with its text, script and MCP servers."""
    return Json(capability_json(cast("Capability", await _one(web, Kind.CAPABILITY, name))))


@router.post(
    "/capabilities",
    operation_id="createCapability",
    status_code=201,
    openapi_extra=body(schemas.CreateCapability),
    responses={
        201: answer("The capability", schemas.Capability),
        409: problem("The name is taken", "Capability already exists: search"),
        **RULES,
        **TOO_LARGE,
        **INVALID,
        **AWAY,
    },
)
async def create_capability(request: Request, web: Web, caller: Caller) -> Response:
    """Create a capability. Its script has to exist; MCP servers that it names need not."""
    given = checked(schemas.CreateCapability, await _sent(request, web))
    check_name(Kind.CAPABILITY, given.name)
    entry = new_entry(Kind.CAPABILITY, await fields_of(given, web.parser))
    written = await _write(web, CreateEntry(Kind.CAPABILITY, given.name, entry, new_id("write"), caller))
    return Json(capability_json(cast("Capability", written)), 201)


@router.patch(
    "/capabilities/{name}",
    operation_id="changeCapability",
    openapi_extra=body(schemas.ChangeCapability),
    responses={
        200: answer("The capability", schemas.Capability),
        **NO_CAPABILITY,
        **RULES,
        **TOO_LARGE,
        **INVALID,
        **AWAY,
    },
)
async def change_capability(name: str, request: Request, web: Web, caller: Caller) -> Response:
    """Set fields of a capability: null keeps a field, an empty value removes it."""
    given = checked(schemas.ChangeCapability, await _sent(request, web))
    change = await fields_of(given, web.parser)
    written = await _write(web, ChangeEntry(Kind.CAPABILITY, storable(name), change, caller))
    return Json(capability_json(cast("Capability", written)))


@router.delete(
    "/capabilities/{name}",
    operation_id="deleteCapability",
    status_code=204,
    responses={
        **GONE,
        **NO_CAPABILITY,
        409: problem("Agents name it", "Capability is referenced by agents: reporter, researcher"),
        **AWAY,
    },
)
async def delete_capability(name: str, web: Web, caller: Caller) -> Response:
    """Delete a capability that no agent names."""
    return await _delete(web, DeleteEntry(Kind.CAPABILITY, storable(name), caller))


@router.get(
    "/scripts",
    operation_id="listScripts",
    responses={200: answer("All scripts, by name", list[schemas.ScriptSummary]), **AWAY},
)
async def read_scripts(request: Request, web: Web) -> Response:
    """List all scripts, without their contents."""
    found = cast("list[Script]", await _all(request, web, Kind.SCRIPT))
    return Json([script_summary_json(entry) for entry in found])


@router.get(
    "/scripts/{name}",
    operation_id="getScript",
    responses={200: answer("The script", schemas.Script), **NO_SCRIPT, **AWAY},
)
async def read_script(name: str, web: Web) -> Response:
    """Return a script with its content."""
    return Json(script_json(cast("Script", await _one(web, Kind.SCRIPT, name))))


@router.get(
    "/scripts/{name}/download",
    operation_id="downloadScript",
    responses={
        200: {"description": "The folder of the script as .tar.gz", "content": {GZIP: {}}},
        **NO_SCRIPT,
        **AWAY,
    },
)
async def download_script(name: str, web: Web) -> Response:
    """Return an archive with one folder of the script's name, which holds `script.json` and the file."""
    script = cast("Script", await _one(web, Kind.SCRIPT, name))
    headers = {"Content-Disposition": f'attachment; filename="{script.name}.tar.gz"'}
    return Response(script_archive(script), 200, headers, GZIP)


@router.post(
    "/scripts",
    operation_id="createScript",
    status_code=201,
    openapi_extra=body(schemas.CreateScript),
    responses={
        201: answer("The script", schemas.Script),
        400: problem("The name cannot be used", "Script name is required"),
        409: problem("The name is taken", "Script already exists: report"),
        **TOO_LARGE,
        **INVALID,
        **AWAY,
    },
)
async def create_script(request: Request, web: Web, caller: Caller) -> Response:
    """Create a script. Procedural runners take it with one of their next polls."""
    given = checked(schemas.CreateScript, await _sent(request, web))
    check_name(Kind.SCRIPT, given.name)
    entry = new_entry(Kind.SCRIPT, await fields_of(given, web.parser), given.script_content)
    written = await _write(web, CreateEntry(Kind.SCRIPT, given.name, entry, new_id("write"), caller))
    return Json(script_json(cast("Script", written)), 201)


@router.patch(
    "/scripts/{name}",
    operation_id="changeScript",
    openapi_extra=body(schemas.ChangeScript),
    responses={200: answer("The script", schemas.Script), **NO_SCRIPT, **TOO_LARGE, **INVALID, **AWAY},
)
async def change_script(name: str, request: Request, web: Web, caller: Caller) -> Response:
    """Set fields of a script: null keeps a field, an empty schema or empty demands are removed.

    A new `script_file` without `script_content` renames the file. Procedural runners take the change with one of their
    next polls.
    """
    given = checked(schemas.ChangeScript, await _sent(request, web))
    change = await fields_of(given, web.parser)
    written = await _write(web, ChangeEntry(Kind.SCRIPT, storable(name), change, caller))
    return Json(script_json(cast("Script", written)))


@router.delete(
    "/scripts/{name}",
    operation_id="deleteScript",
    status_code=204,
    responses={
        **GONE,
        **NO_SCRIPT,
        409: problem("Agents name it", "Script is referenced by agents: reporter"),
        **AWAY,
    },
)
async def delete_script(name: str, web: Web, caller: Caller) -> Response:
    """Delete a script that no agent names; a capability may. Procedural runners drop it with a later poll."""
    return await _delete(web, DeleteEntry(Kind.SCRIPT, storable(name), caller))


@router.get(
    "/mcp-servers",
    operation_id="listToolServers",
    responses={200: answer("All MCP servers, by name", list[schemas.McpServer]), **AWAY},
)
async def read_mcp_servers(request: Request, web: Web, caller: Caller) -> Response:
    """List all MCP servers. Values of fields called sensitive are shown to admins alone; others see null."""
    found = cast("list[McpServer]", await _all(request, web, Kind.MCP_SERVER))
    masked = caller.role is not Role.ADMIN
    return Json([mcp_server_json(entry, masked=masked) for entry in sorted(found, key=_by_name)])


def _by_name(server: McpServer) -> tuple[str, str]:
    return server.name, server.id


@router.get(
    "/mcp-servers/{server_id}",
    operation_id="getToolServer",
    responses={200: answer("The MCP server", schemas.McpServer), **NO_SERVER, **AWAY},
)
async def read_mcp_server(server_id: str, web: Web, caller: Caller) -> Response:
    """Return an MCP server. Values of fields called sensitive are shown to admins alone; others see null."""
    found = cast("McpServer", await _one(web, Kind.MCP_SERVER, server_id))
    return Json(mcp_server_json(found, masked=caller.role is not Role.ADMIN))


@router.post(
    "/mcp-servers",
    operation_id="createToolServer",
    status_code=201,
    openapi_extra=body(schemas.CreateMcpServer),
    responses={
        201: answer("The MCP server", schemas.McpServer),
        409: problem("The id is taken", "MCP server 'atlassian' already exists"),
        **TOO_LARGE,
        **INVALID,
        **AWAY,
    },
)
async def create_mcp_server(request: Request, web: Web, caller: Caller) -> Response:
    """Create an MCP server; unknown fields are refused."""
    given = checked(schemas.CreateMcpServer, await _sent(request, web))
    entry = new_entry(Kind.MCP_SERVER, await fields_of(given, web.parser))
    written = await _write(web, CreateEntry(Kind.MCP_SERVER, given.id, entry, new_id("write"), caller))
    return Json(mcp_server_json(cast("McpServer", written), masked=False), 201)


@router.put(
    "/mcp-servers/{server_id}",
    operation_id="changeToolServer",
    openapi_extra=body(schemas.ChangeMcpServer),
    responses={200: answer("The MCP server", schemas.McpServer), **NO_SERVER, **TOO_LARGE, **INVALID, **AWAY},
)
async def change_mcp_server(server_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Set fields of an MCP server: absent and null ones are kept; unknown fields are refused."""
    given = checked(schemas.ChangeMcpServer, await _sent(request, web))
    change = await fields_of(given, web.parser)
    written = await _write(web, ChangeEntry(Kind.MCP_SERVER, storable(server_id), change, caller))
    return Json(mcp_server_json(cast("McpServer", written), masked=False))


@router.delete(
    "/mcp-servers/{server_id}",
    operation_id="deleteToolServer",
    status_code=204,
    responses={**GONE, **NO_SERVER, **AWAY},
)
async def delete_mcp_server(server_id: str, web: Web, caller: Caller) -> Response:
    """Delete an MCP server, also one that agents name: their runs are refused then."""
    return await _delete(web, DeleteEntry(Kind.MCP_SERVER, storable(server_id), caller))


async def _all(request: Request, web: Web, kind: Kind) -> list[Entry]:
    async def fetch() -> list[Entry]:
        return await web.reads.autocommit(list_entries, kind)

    return await web.lists.make(caller_of(credential_of(request)), fetch)


async def _one(web: Web, kind: Kind, name: str) -> Entry:
    asked = storable(name)
    found = await web.reads.autocommit(get_entry, kind, asked)
    if found is None:
        raise VerbRefused(EntryNotFound(NOUNS[kind], asked))
    return found


async def _sent(request: Request, web: Web) -> object:
    return await strict_body(request, web.parser, web.settings.submission_bytes)


async def _write(web: Web, write: EntryWrite) -> Entry | None:
    return accepted(await web.verbs.write_entries.one(write)).entry


async def _delete(web: Web, write: DeleteEntry) -> Response:
    accepted(await web.verbs.write_entries.one(write))
    return Response(status_code=204)
