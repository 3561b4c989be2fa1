"""Read, bind, change, stop and delete sessions (PROTOCOL, Sessions)."""

from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.deps import TheCaller, TheWeb, strict_body
from app.endpoint import Endpoint
from app.http.lenient import encode
from app.http.pagination import storable_query, wanted
from app.http.problems import accepted
from app.http.serializers import Json, result_json
from app.inputs.schemas import BindSession, PatchSession, checked
from app.lists.answers import Page, answer_list
from app.openapi import answers, document
from app.routes.runs import stopped_json
from models.core.ids import new_id
from models.core.storable_text import storable
from models.runs.delete import DeleteSession
from models.runs.lists import SessionFilter, list_sessions
from models.runs.results import session_result, session_status
from models.runs.stop import StopSession
from models.sessions.bind import Bind, Patch
from models.state.sessions import Session, get_session, session_json

router = APIRouter(tags=["Sessions"], route_class=Endpoint)

AFFINITY: Final = ("session_id", "executor_session_id", "hostname", "project_dir", "executor_profile")


@router.get("/sessions", responses=answers.SESSIONS, openapi_extra=document.query(answers.SESSION_FILTERS))
async def read_sessions(request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """List sessions, newest first. Without `limit` and `cursor` all of them are streamed, up to the list limit."""
    limit, cursor = wanted(request)
    which = SessionFilter(
        statuses=tuple(filter(None, (storable_query(status) for status in request.query_params.getlist("status")))),
        parent_session_id=storable_query(request.query_params.get("parent_session_id")),
    )

    async def fetch(after: str | None, most: int) -> Page:
        page = accepted(await web.reads.autocommit(list_sessions, caller, which, limit=most, after=after))
        shown = [encode(session_json(session)) for session in page.sessions]
        return Page(shown, page.next_cursor, {"feed_cursor": page.feed_cursor})

    return await answer_list(request, "sessions", fetch, limit, cursor, web.settings.list_limit)


@router.get("/sessions/{session_id}", responses=answers.SESSION)
async def read_session(session_id: str, web: TheWeb, caller: TheCaller) -> Response:
    """Return a session."""
    return Json({"session": session_json(await _read(web, caller, session_id))})


@router.get("/sessions/{session_id}/status", responses=answers.SESSION_STATUS)
async def read_status(session_id: str, web: TheWeb, caller: TheCaller) -> Response:
    """Return the status alone; `not_existent` when there is no such session."""
    return Json({"status": await web.reads.autocommit(session_status, caller, storable(session_id))})


@router.get("/sessions/{session_id}/result", responses=answers.RESULT)
async def read_result(session_id: str, web: TheWeb, caller: TheCaller) -> Response:
    """Return the newest `result` event, once the session is finished or idle."""
    return Json(result_json(accepted(await web.reads.read(session_result, caller, storable(session_id)))))


@router.get("/sessions/{session_id}/affinity", responses=answers.AFFINITY)
async def read_affinity(session_id: str, web: TheWeb, caller: TheCaller) -> Response:
    """Return the place where the session lives; its resumes go there."""
    session = session_json(await _read(web, caller, session_id))
    return Json({"affinity": {name: session[name] for name in AFFINITY}})


@router.post("/sessions/{session_id}/bind", openapi_extra=document.body(BindSession), responses=answers.SESSION_CHANGED)
async def bind_session(session_id: str, request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """Bind the session to the place where it lives; it becomes `running` if a run of it is claimed or running."""
    body = checked(BindSession, await strict_body(request, web.settings.submission_bytes))
    bind = Bind(
        caller=caller,
        session_id=storable(session_id),
        executor_session_id=body.executor_session_id,
        hostname=body.hostname,
        executor_profile=body.executor_profile,
        project_dir=body.project_dir,
    )
    # Deployed runners send it once, so it is held while Postgres is away.
    session = accepted(await web.retry_until(lambda: web.verbs.bind.one(bind)))
    return Json({"ok": True, "session": session_json(session)})


@router.patch(
    "/sessions/{session_id}/metadata", openapi_extra=document.body(PatchSession), responses=answers.SESSION_CHANGED
)
async def patch_session(session_id: str, request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """Change the given fields; null leaves a field unchanged."""
    body = checked(PatchSession, await strict_body(request, web.settings.submission_bytes))
    values = {name: value for name, value in body.model_dump(mode="json").items() if value is not None}
    patch = Patch(caller, storable(session_id), values)
    return Json({"ok": True, "session": session_json(accepted(await web.verbs.patch.one(patch)))})


@router.post("/sessions/{session_id}/stop", responses=answers.STOPPED)
async def stop_session(session_id: str, web: TheWeb, caller: TheCaller) -> Response:
    """Stop all runs of the session, and its live process. Repeating it is harmless."""
    stopped = accepted(await web.verbs.stop_sessions.one(StopSession(caller, storable(session_id))))
    return Json(stopped_json(stopped))


@router.delete("/sessions/{session_id}", responses=answers.DELETED)
async def delete_session(session_id: str, web: TheWeb, caller: TheCaller) -> Response:
    """Delete a session with its runs and events; children lose their parent, nothing else."""
    deleted = accepted(await web.verbs.delete.one(DeleteSession(caller, storable(session_id), new_id("del_"))))
    counts: dict[str, Any] = {
        "session": True,
        "events_count": deleted.events_count,
        "runs_count": deleted.runs_count,
    }
    return Json({"ok": True, "session_id": deleted.session_id, "deleted": counts})


async def _read(web: TheWeb, caller: TheCaller, session_id: str) -> Session:
    return accepted(await web.reads.autocommit(get_session, caller, storable(session_id)))
