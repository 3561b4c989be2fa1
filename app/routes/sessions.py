from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.endpoint import Endpoint
from app.http.bodies import checked, strict_body
from app.http.lenient import encode
from app.http.problems import accepted
from app.http.query import CURSOR, CURSOR_IN_BODY, LIMIT, Parameter, Text, Texts, Whole, strict_query
from app.http.serializers import Json, result_json, stopped_json, tree_json
from app.lists.answers import Page, answer_list
from app.openapi.document import body, query
from app.openapi.responses import (
    AWAY,
    BAD_CURSOR,
    INVALID,
    NO_SESSION,
    STALE,
    TOO_LARGE,
    Responses,
    answer,
    list_answer,
    problem,
)
from app.routes.runs import STOPPED
from app.schemas.runs import Result
from app.schemas.sessions import (
    Affinity,
    AffinityAnswer,
    BindSession,
    PatchSession,
    SessionAnswer,
    SessionChanged,
    SessionDeleted,
    SessionPage,
    SessionState,
    SessionTree,
)
from app.web import Web
from models.core.callers import Caller
from models.core.errors import CoordinatorError
from models.core.ids import new_id
from models.core.storable_text import storable
from models.runs.delete import DeleteSession
from models.runs.lists import SessionFilter, list_sessions
from models.runs.results import session_result, session_status
from models.runs.stop import StopSession
from models.sessions.bind import Bind, Patch
from models.sessions.tree import DEEPEST, MOST_NODES, session_tree
from models.state.sessions import Session, get_session, session_json

router = APIRouter(tags=["Sessions"], route_class=Endpoint)

STATUS: Final = Texts("status", "Only sessions in this status; may be repeated")
PARENT: Final = Text("parent_session_id", "Only children of this session")
LIST: Final[tuple[Parameter, ...]] = (STATUS, PARENT, LIMIT, CURSOR)
USUAL_DEPTH: Final = 5
USUAL_NODES: Final = 500
DEPTH: Final = Whole("depth", f"Levels below the session (default {USUAL_DEPTH})", least=0, most=DEEPEST)
NODES: Final = Whole("limit", f"Most sessions (default {USUAL_NODES})", least=1, most=MOST_NODES)
CHANGED: Final[Responses] = {
    200: answer("The session as it is now", SessionChanged),
    **NO_SESSION,
    409: problem("The run is held by another host or profile", STALE),
    **TOO_LARGE,
    **INVALID,
    **AWAY,
}


@router.get(
    "/sessions",
    operation_id="listSessions",
    openapi_extra=query(*LIST, CURSOR_IN_BODY),
    responses={200: list_answer("Page, or all sessions", SessionPage), **BAD_CURSOR, **INVALID, **AWAY},
)
async def read_sessions(request: Request, web: Web, caller: Caller) -> Response:
    """List sessions, newest first. Without `limit` and `cursor` all of them are streamed, up to the list limit."""
    given = request.query_params
    limit, cursor = LIMIT.of(given), CURSOR.of(given)
    which = SessionFilter(statuses=STATUS.of(given), parent_session_id=PARENT.of(given))

    async def fetch(after: str | None, most: int) -> Page:
        page = accepted(await web.reads.autocommit(list_sessions, caller, which, limit=most, after=after))
        shown = [encode(session_json(session)) for session in page.sessions]
        return Page(shown, page.next_cursor, page.feed_cursor)

    return await answer_list(request, "sessions", fetch, limit, cursor, web.settings.list_limit, own=LIST)


@router.get(
    "/sessions/{session_id}",
    operation_id="getSession",
    responses={200: answer("The session", SessionAnswer), **NO_SESSION, **AWAY},
)
async def read_session(session_id: str, web: Web, caller: Caller) -> Response:
    """Return a session."""
    return Json({"session": session_json(await _read(web, caller, session_id))})


@router.get(
    "/sessions/{session_id}/tree",
    operation_id="getSessionTree",
    openapi_extra=query(DEPTH, NODES),
    responses={200: answer("The session and those under it", SessionTree), **NO_SESSION, **INVALID, **AWAY},
)
async def read_session_tree(session_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Return a session and those under it, level by level, oldest first."""
    given = strict_query(request, (DEPTH, NODES))
    depth, limit = DEPTH.of(given), NODES.of(given) or USUAL_NODES
    levels = USUAL_DEPTH if depth is None else depth
    tree = await web.reads.read(session_tree, caller, storable(session_id), depth=levels, limit=limit)
    return Json(tree_json(accepted(tree)))


@router.get(
    "/sessions/{session_id}/status",
    operation_id="getSessionStatus",
    responses={200: answer("`not_existent` for an unknown session", SessionState), **AWAY},
)
async def read_session_status(session_id: str, web: Web, caller: Caller) -> Response:
    """Return the status alone; `not_existent` when there is no such session."""
    return Json({"status": await web.reads.autocommit(session_status, caller, storable(session_id))})


@router.get(
    "/sessions/{session_id}/result",
    operation_id="getSessionResult",
    responses={
        200: answer("Newest `result` event", Result),
        400: problem("The session is not finished or idle", "Session not finished or idle"),
        404: problem("No such session, or it has no result", "No result found"),
        **AWAY,
    },
)
async def read_session_result(session_id: str, web: Web, caller: Caller) -> Response:
    """Return the newest `result` event, once the session is finished or idle."""
    return Json(result_json(accepted(await web.reads.read(session_result, caller, storable(session_id)))))


@router.get(
    "/sessions/{session_id}/affinity",
    operation_id="getSessionAffinity",
    responses={
        200: answer("Place where the session lives; null until it is bound", AffinityAnswer),
        **NO_SESSION,
        **AWAY,
    },
)
async def read_session_affinity(session_id: str, web: Web, caller: Caller) -> Response:
    """Return the place where the session lives; its resumes go there."""
    session = session_json(await _read(web, caller, session_id))
    return Json({"affinity": {name: session[name] for name in Affinity.model_fields}})


@router.post(
    "/sessions/{session_id}/bind", operation_id="bindSession", openapi_extra=body(BindSession), responses=CHANGED
)
async def bind_session(session_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Bind the session to the place where it lives; it becomes `running` if a run of it is claimed or running."""
    given = checked(BindSession, await strict_body(request, web.parser, web.settings.submission_bytes))
    bind = Bind(
        caller=caller,
        session_id=storable(session_id),
        executor_session_id=given.executor_session_id,
        hostname=given.hostname,
        executor_profile=given.executor_profile,
        project_dir=given.project_dir,
    )
    # Deployed runners send it once, so it is held while Postgres is away.
    bound: Session | CoordinatorError = await web.retry_until(lambda: web.verbs.bind.submit(bind))
    return Json({"ok": True, "session": session_json(accepted(bound))})


@router.patch(
    "/sessions/{session_id}/metadata", operation_id="patchSession", openapi_extra=body(PatchSession), responses=CHANGED
)
async def patch_session(session_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Change the given fields; null leaves a field unchanged."""
    given = checked(PatchSession, await strict_body(request, web.parser, web.settings.submission_bytes))
    values = {name: value for name, value in given.model_dump(mode="json").items() if value is not None}
    patch = Patch(caller, storable(session_id), values)
    return Json({"ok": True, "session": session_json(accepted(await web.verbs.patch.one(patch)))})


@router.post("/sessions/{session_id}/stop", operation_id="stopSession", responses=STOPPED)
async def stop_session(session_id: str, web: Web, caller: Caller) -> Response:
    """Stop all runs of the session, and its live process. Repeating it is harmless."""
    stopped = accepted(await web.verbs.stop_sessions.one(StopSession(caller, storable(session_id))))
    return Json(stopped_json(stopped))


@router.delete(
    "/sessions/{session_id}",
    operation_id="deleteSession",
    responses={
        200: answer("Deleted", SessionDeleted),
        **NO_SESSION,
        409: problem("The session has active runs or a live process", "Stop session first"),
        **AWAY,
    },
)
async def delete_session(session_id: str, web: Web, caller: Caller) -> Response:
    """Delete a session with its runs and events; children lose their parent, nothing else."""
    deleted = accepted(await web.verbs.delete.one(DeleteSession(caller, storable(session_id), new_id("del_"))))
    counts: dict[str, Any] = {
        "session": True,
        "events_count": deleted.events_count,
        "runs_count": deleted.runs_count,
    }
    # Clients of the coordinator before this one are told how many of the runs it had in memory; here that is all.
    return Json(
        {
            "ok": True,
            "session_id": deleted.session_id,
            "deleted": counts,
            "runs_removed_from_cache": deleted.runs_count,
        }
    )


async def _read(web: Web, caller: Caller, session_id: str) -> Session:
    return accepted(await web.reads.autocommit(get_session, caller, storable(session_id)))
