"""Files of a configuration as the replaced coordinator keeps them, and the entries of registries that they make."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from pydantic import BaseModel

from app.http.bodies import Invalid, TooLarge, checked, first_fault, parse_strict
from app.inputs.config_trees import ConfigTree, FileTooLarge, archive_of
from app.inputs.registries import name_fault, schema_fault, schema_text
from app.schemas import registries as schemas
from models.registries.changes import fault_of, new_entry
from models.registries.imports import NamedEntry
from models.registries.records import Agent, AgentStatus, Capability, Kind, Script, record_of

RECORD_OF: Final[Mapping[Kind, str]] = {
    Kind.AGENT: "agent.json",
    Kind.CAPABILITY: "capability.json",
    Kind.SCRIPT: schemas.SCRIPT_RECORD,
    Kind.MCP_SERVER: "mcp-server.json",
}
PROMPT_FILE: Final = "agent.system-prompt.md"
AGENT_SERVERS_FILE: Final = "agent.mcp.json"
DISABLED_FILE: Final = ".disabled"
TEXT_FILE: Final = "capability.text.md"
CAPABILITY_SERVERS_FILE: Final = "capability.mcp.json"
_SERVERS: Final = "mcpServers"
_MODELS: Final[Mapping[Kind, type[BaseModel]]] = {
    Kind.AGENT: schemas.CreateAgent,
    Kind.CAPABILITY: schemas.CreateCapability,
    Kind.SCRIPT: schemas.CreateScript,
    Kind.MCP_SERVER: schemas.CreateMcpServer,
}


@dataclass(frozen=True, slots=True)
class Refused:
    """Folder that cannot become an entry, and why."""

    kind: Kind
    name: str
    reason: str


@dataclass(slots=True)
class ConfigEntries:
    """Entries of the folders of a configuration. ``notes``: what is different here from the files."""

    entries: list[NamedEntry] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Unusable(Exception):
    """Folder that cannot become an entry; the text says why."""


def entries_of(tree: ConfigTree, kinds: Iterable[Kind]) -> ConfigEntries:
    """Read all folders with the record of an entry. An entry is named after its folder."""
    found = ConfigEntries()
    for kind in kinds:
        for name in tree.folders(kind):
            try:
                record = _json_file(tree, f"{kind}/{name}/{RECORD_OF[kind]}")
                if record is None:
                    continue
                found.entries.append(NamedEntry(kind, name, _entry(tree, kind, name, record, found.notes)))
            except _Unusable as unusable:
                found.refused.append(Refused(kind, name, str(unusable)))
            except FileTooLarge:
                found.refused.append(Refused(kind, name, "A file of it is too large"))
            except OSError as fault:
                found.refused.append(Refused(kind, name, fault.strerror or "It cannot be read"))
    return found


def _entry(tree: ConfigTree, kind: Kind, name: str, record: dict[str, Any], notes: list[str]) -> Any:
    fault = name_fault(kind, name) if kind is not Kind.MCP_SERVER else None
    if fault is not None:
        raise _Unusable(fault)
    key = "id" if kind is Kind.MCP_SERVER else "name"
    if key not in record:
        raise _Unusable(f"{key}: Field required")
    if record[key] != name:
        notes.append(f"{kind}/{name}: {key} is that of the folder, not {json.dumps(record[key])[:80]}")
    if kind is Kind.MCP_SERVER:
        # Its model refuses unknown fields, which files may have.
        record = {field: value for field, value in record.items() if field in schemas.CreateMcpServer.model_fields}
    given = record | {key: name} | _beside(tree, kind, f"{kind}/{name}", record, notes)
    fields = _checked(_MODELS[kind], given).model_dump(exclude_none=True)
    text = schema_text(fields)
    fault = None if text is None else schema_fault(text)
    if fault is not None:
        raise _Unusable(f"parameters_schema: {fault}")
    if kind is Kind.AGENT and tree.read(f"{kind}/{name}/{DISABLED_FILE}") is not None:
        fields["status"] = AgentStatus.INACTIVE
    entry = new_entry(kind, fields, fields.get("script_content"))
    broken = fault_of(entry)
    if broken is not None:
        raise _Unusable(broken.reason)
    return entry


def _beside(tree: ConfigTree, kind: Kind, folder: str, record: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return the fields of an entry that have files of their own."""
    match kind:
        case Kind.AGENT:
            return {
                "system_prompt": _text_file(tree, f"{folder}/{PROMPT_FILE}"),
                "mcp_servers": _servers(tree, f"{folder}/{AGENT_SERVERS_FILE}"),
            }
        case Kind.CAPABILITY:
            servers = _servers(tree, f"{folder}/{CAPABILITY_SERVERS_FILE}")
            usual = "script" if record.get("script") else "mcp" if servers is not None else "text"
            text = _text_file(tree, f"{folder}/{TEXT_FILE}")
            return {"type": record.get("type") or usual, "text": text, "mcp_servers": servers}
        case Kind.SCRIPT:
            return {"script_content": _script_file(tree, folder, record, notes)}
        case Kind.MCP_SERVER:
            return {}


def _script_file(tree: ConfigTree, folder: str, record: Mapping[str, Any], notes: list[str]) -> str:
    name = record.get("script_file")
    if not isinstance(name, str) or not name or PurePosixPath(name).name != name or "\0" in name:
        raise _Unusable("script_file: Should be the name of a file without a folder")
    content = _text_file(tree, f"{folder}/{name}")
    if content is None:
        raise _Unusable(f"script_file: {name} does not exist")
    others = sorted({*tree.files(folder)} - {name, schemas.SCRIPT_RECORD})
    if others:
        notes.append(f"{folder}: further files stay behind: {', '.join(others[:5])[:200]}")
    return content


def _servers(tree: ConfigTree, path: str) -> Any:
    found = _json_file(tree, path)
    if found is None:
        return None
    if _SERVERS not in found:
        raise _Unusable(f"{PurePosixPath(path).name}: {_SERVERS}: Field required")
    return found[_SERVERS]


def _json_file(tree: ConfigTree, path: str) -> dict[str, Any] | None:
    raw = tree.read(path)
    if raw is None:
        return None
    name = PurePosixPath(path).name
    try:
        document = parse_strict(raw)
    except Invalid as invalid:
        raise _Unusable(f"{name}: {invalid.faults[0].msg}") from invalid
    except TooLarge as large:
        raise _Unusable(f"{name}: too many values") from large
    fault = first_fault(document.value, ()) if document.suspect else None
    if fault is not None:
        raise _Unusable(f"{name}: {fault.msg}")
    if not isinstance(document.value, dict):
        raise _Unusable(f"{name}: Should be an object")
    return document.value


def _text_file(tree: ConfigTree, path: str) -> str | None:
    raw = tree.read(path)
    if raw is None:
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError as bad:
        raise _Unusable(f"{PurePosixPath(path).name}: Should be UTF-8") from bad
    if "\0" in text:
        raise _Unusable(f"{PurePosixPath(path).name}: Should not contain the NUL character")
    return text


def _checked(model: type[BaseModel], given: dict[str, Any]) -> BaseModel:
    try:
        return checked(model, given, ())
    except Invalid as invalid:
        fault = invalid.faults[0]
        raise _Unusable(f"{'.'.join(map(str, fault.loc))}: {fault.msg}") from invalid


def script_archive(script: Script) -> bytes:
    """Return the folder of a script as the runner unpacks it."""
    path = f"{script.name}/{script.script_file}"
    files = {
        f"{script.name}/{schemas.SCRIPT_RECORD}": _record_file(record_of(script)),
        path: (script.script_content or "").encode(),
    }
    return archive_of(files, executable=[path])


def config_archive(agents: Iterable[Agent], capabilities: Iterable[Capability]) -> bytes:
    """Return all agents and capabilities as the folders that an import reads."""
    files: dict[str, bytes] = {}
    for agent in agents:
        files |= _agent_files(agent)
    for capability in capabilities:
        files |= _capability_files(capability)
    return archive_of(files)


def _agent_files(agent: Agent) -> dict[str, bytes]:
    record = record_of(agent)
    folder = f"{Kind.AGENT}/{agent.name}"
    prompt, servers, status = (record.pop(name, None) for name in ("system_prompt", "mcp_servers", "status"))
    files = {f"{folder}/{RECORD_OF[Kind.AGENT]}": _record_file(record)}
    if prompt is not None:
        files[f"{folder}/{PROMPT_FILE}"] = prompt.encode()
    if servers is not None:
        files[f"{folder}/{AGENT_SERVERS_FILE}"] = _record_file({_SERVERS: servers})
    if status == AgentStatus.INACTIVE:
        files[f"{folder}/{DISABLED_FILE}"] = b""
    return files


def _capability_files(capability: Capability) -> dict[str, bytes]:
    record = record_of(capability)
    folder = f"{Kind.CAPABILITY}/{capability.name}"
    prompt, servers = (record.pop(name, None) for name in ("text", "mcp_servers"))
    files = {f"{folder}/{RECORD_OF[Kind.CAPABILITY]}": _record_file(record)}
    if prompt is not None:
        files[f"{folder}/{TEXT_FILE}"] = prompt.encode()
    if servers is not None:
        files[f"{folder}/{CAPABILITY_SERVERS_FILE}"] = _record_file({_SERVERS: servers})
    return files


def _record_file(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, indent=2, ensure_ascii=False).encode()
