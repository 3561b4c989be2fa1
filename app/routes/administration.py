"""Calls of administrators: keys, the audit log, the state of the coordinator."""

from dataclasses import asdict
from functools import partial
from typing import Any, Final

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.auth.callers import is_owner
from app.endpoint import Endpoint
from app.http.bodies import Fault, Invalid, checked, strict_body
from app.http.problems import accepted
from app.http.query import CURSOR, LIMIT, Moment, Text, strict_query
from app.http.serializers import Json
from app.openapi.document import body, query
from app.openapi.responses import AWAY, BAD_CURSOR, INVALID, TOO_LARGE, answer, problem
from app.schemas.administration import AuditPage, CreateKey, Key, KeyCreated, KeyList, System
from app.web import Web
from models.auth.audit import ActFilter, entry_json, page_acts
from models.auth.keys import Key as KeyRow
from models.auth.keys import NewKey, create_keys, list_keys, mint_token, revoke_keys
from models.core.callers import UNNAMED, Caller, Role
from models.core.storable_text import storable
from models.overview.system import Sign, read_system
from models.state.runs import iso
from runtime.effective_settings import effective

router = APIRouter(tags=["Administration"], route_class=Endpoint)

BY: Final = Text("by", "Only acts of this credential, as `by` shows it")
ACT: Final = Text("act", "Only acts of this kind")
TARGET: Final = Text("target", "Only acts on this id")
SINCE: Final = Moment("since", "Only acts at this time or later")
UNTIL: Final = Moment("until", "Only acts before this time")
AUDIT_QUERY: Final = (BY, ACT, TARGET, SINCE, UNTIL, LIMIT, CURSOR)
USUAL_LIMIT: Final = 100
FIRST_KEY: Final = (
    "Authentication is off: create the first key with `coordinator keys create`, where no other client can take over"
)
NO_STORE: Final = {"Cache-Control": "no-store"}


@router.get(
    "/audit",
    operation_id="listAudit",
    openapi_extra=query(*AUDIT_QUERY),
    responses={200: answer("Acts, newest first", AuditPage), **BAD_CURSOR, **INVALID, **AWAY},
)
async def read_audit(request: Request, web: Web) -> Response:
    """List acts of administrators, newest first.

    A page looks at 100,000 acts at most: with filters it may hold few, or none, and have a cursor.
    """
    given = strict_query(request, AUDIT_QUERY)
    which = ActFilter(BY.of(given), ACT.of(given), TARGET.of(given), SINCE.of(given), UNTIL.of(given))
    limit = LIMIT.of(given) or USUAL_LIMIT
    page = accepted(await web.reads.autocommit(page_acts, which, limit=limit, before=CURSOR.of(given)))
    shown: dict[str, Any] = {"entries": [entry_json(entry) for entry in page.entries]}
    return Json(shown if page.next_cursor is None else shown | {"next_cursor": page.next_cursor})


@router.get("/keys", operation_id="listKeys", responses={200: answer("All keys", KeyList), **INVALID, **AWAY})
async def read_keys(request: Request, web: Web) -> Response:
    """List all API keys, oldest first, without their secrets."""
    strict_query(request, ())
    return Json({"keys": [_key_json(key) for key in await web.reads.autocommit(list_keys)]})


@router.post(
    "/keys",
    operation_id="createKey",
    status_code=201,
    openapi_extra=body(CreateKey),
    responses={
        201: answer("The key, shown this once", KeyCreated),
        409: problem("Authentication is off", FIRST_KEY),
        **TOO_LARGE,
        **INVALID,
        **AWAY,
    },
)
async def create_key(request: Request, web: Web, caller: Caller) -> Response:
    """Create an API key and show its secret once. Every process accepts it at once, and it is in the audit log."""
    given = checked(CreateKey, await strict_body(request, web.parser, web.settings.submission_bytes))
    if web.callers.auth_required is False or caller.by is None:
        raise HTTPException(409, FIRST_KEY)
    role = Role(given.role)
    if given.owner is None and role is not Role.ADMIN:
        raise Invalid([Fault("missing", ("body", "owner"), f"Field required for a {role} key")])
    if given.owner is not None and not is_owner(given.owner):
        raise Invalid([Fault("owner", ("body", "owner"), "Should be 1 to 255 printable characters")])
    token, parts = mint_token()
    new = NewKey(parts.key_id, parts.secret_hash, role, given.owner, given.name, given.expires_in_seconds)
    (made,) = await web.writes.write(partial(create_keys, by=caller.by), [new])
    return Json(_key_json(accepted(made)) | {"key": token}, 201, NO_STORE)


@router.delete(
    "/keys/{key_id}",
    operation_id="revokeKey",
    responses={200: answer("The key as it is now", Key), 404: problem("No such key", "Key not found"), **AWAY},
)
async def revoke_key(key_id: str, web: Web, caller: Caller) -> Response:
    """Revoke an API key for ever; every process refuses it within 5 s. Repeating it is harmless."""
    (revoked,) = await web.writes.write(partial(revoke_keys, by=caller.by or UNNAMED), [storable(key_id)])
    return Json(_key_json(accepted(revoked)))


@router.get("/system", operation_id="getSystem", responses={200: answer("State", System), **INVALID, **AWAY})
async def read_state(request: Request, web: Web) -> Response:
    """Return processes, duties, outages, positions of the feed, versions, and settings with masked passwords."""
    strict_query(request, ())
    system = await web.reads.autocommit(read_system)
    found, needed = system.schema
    return Json(
        {
            "instance": web.instance,
            "versions": {"coordinator": request.app.version, "schema_found": found, "schema_needed": needed},
            "instances": [_sign_json(sign) for sign in system.instances],
            "duties": [_sign_json(sign) for sign in system.duties],
            "gaps": [
                {"kind": gap.kind, "started_at": iso(gap.started_at), "ended_at": iso(gap.ended_at)}
                for gap in system.gaps
            ],
            "feed": {
                "epoch": system.feed.epoch,
                "head": system.feed.position,
                "floor": system.feed.floor,
                "counted": system.counted,
            },
            "settings": [asdict(setting) for setting in effective(web.settings)],
        }
    )


def _sign_json(sign: Sign) -> dict[str, Any]:
    return {"name": sign.name, "at": iso(sign.at), "age_seconds": max(0.0, round(sign.age, 3))}


def _key_json(key: KeyRow) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "role": key.role,
        "owner": key.owner,
        "name": key.name,
        "created_at": iso(key.created_at),
        "expires_at": iso(key.expires_at),
        "revoked_at": iso(key.revoked_at),
        "last_used_at": iso(key.last_used_at),
        "state": key.state,
    }
