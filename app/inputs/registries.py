"""Entries of the registries in request bodies, as arguments of verbs."""

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson
from pydantic import BaseModel

from app.http.bodies import Fault, Invalid
from app.http.body_limits import BodyParser
from app.http.problems import BadRequest
from app.inputs.agent_schemas import AgentSchema, BadSchema
from models.registries.changes import NOUNS
from models.registries.records import Kind

LONGEST_NAME: Final = 60
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]*")
_SCHEMA: Final = "parameters_schema"


def name_fault(kind: Kind, name: str) -> str | None:
    """Return why an agent, a capability or a script cannot have this name."""
    noun = NOUNS[kind]
    if not name:
        return f"{noun} name is required"
    if len(name) > LONGEST_NAME:
        return f"{noun} name must be {LONGEST_NAME} characters or less"
    if _NAME.fullmatch(name) is None:
        rule = "must start with letter/number and contain only alphanumeric characters, hyphens, and underscores"
        return f"{noun} name {rule}"
    return None


def check_name(kind: Kind, name: str) -> None:
    fault = name_fault(kind, name)
    if fault is not None:
        raise BadRequest(fault)


async def fields_of(given: BaseModel, parser: BodyParser) -> dict[str, Any]:
    """Return the fields that were given and are not null. Raises Invalid for a schema that cannot be used."""
    fields = given.model_dump(exclude_none=True)
    text = schema_text(fields)
    if text is not None:
        fault = await parser.run(lambda raw: schema_fault(raw.decode()), text.encode())
        if fault is not None:
            raise Invalid([Fault("agent_schema", ("body", _SCHEMA), fault)])
    return fields


def schema_text(fields: Mapping[str, Any]) -> str | None:
    schema = fields.get(_SCHEMA)
    return orjson.dumps(schema).decode() if schema else None


def schema_fault(text: str) -> str | None:
    try:
        AgentSchema(text)
    except BadSchema as refused:
        return str(refused)
    return None
