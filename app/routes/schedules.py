"""Schedules: runs that are submitted at times that their owner states."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.auth.authenticate import credential_of
from app.endpoint import Endpoint
from app.http.bodies import checked, strict_body
from app.http.headers import header_of
from app.http.problems import accepted
from app.http.query import CURSOR, LIMIT, Whole, strict_query
from app.http.schedule_json import backfill_json, fire_json, next_times_json, schedule_json
from app.http.serializers import Json
from app.inputs.schedules import put_schedule as schedule_of
from app.inputs.schedules import selection_of, spec_of
from app.inputs.submission import idempotency_key
from app.openapi.document import body, query
from app.openapi.responses import AWAY, BAD_CURSOR, INVALID, TOO_LARGE, Responses, answer, problem
from app.schemas.schedules import (
    MOST_NEXT,
    Backfill,
    BackfillSchedule,
    ChangeSchedules,
    Fire,
    FirePage,
    NextTimes,
    PauseSchedule,
    PutSchedule,
    Schedule,
    ScheduleDeleted,
    SchedulePage,
    SchedulesChanged,
    ScheduleTimes,
    TriggerSchedule,
)
from app.web import Web
from app.writes.attempts import Unavailable
from models.core.callers import Caller
from models.core.errors import CoordinatorError
from models.core.ids import new_id
from models.core.storable_text import storable
from models.schedules.control import Backfill as BackfillItem
from models.schedules.control import Deleted, DeleteSchedule, SetPaused, Trigger
from models.schedules.listing import (
    get_schedule,
    list_fires,
    list_schedules,
    preview_backfill,
    read_upcoming,
)
from models.schedules.put import Changed
from models.schedules.rows import clock
from models.schedules.selection import changes, for_action, select_schedules

router = APIRouter(tags=["Schedules"], route_class=Endpoint)

USUAL_LIMIT: Final = 50
USUAL_NEXT: Final = 10
COUNT: Final = Whole("count", f"Number of times (default {USUAL_NEXT})", least=1, most=MOST_NEXT)

NO_SCHEDULE: Final[Responses] = {404: problem("No such schedule", "Schedule not found")}
OTHER_VERSION: Final = problem(
    "It has another version or owner, or the Idempotency-Key came with another body",
    {"error": "version_conflict", "version": 8, "message": "The schedule has version 8; nothing was changed"},
)


@router.put(
    "/schedules/{schedule_id}",
    operation_id="putSchedule",
    status_code=201,
    openapi_extra=body(PutSchedule),
    responses={
        201: answer("Created", Schedule),
        200: answer("Replaced", Schedule),
        400: problem("The parameters of the run cannot be used", {"error": "parameter_validation_failed"}),
        409: OTHER_VERSION,
        **NO_SCHEDULE,
        **TOO_LARGE,
        **INVALID,
        **AWAY,
    },
)
async def put_schedule(schedule_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Create a schedule, or replace it as a whole; times count from now on, and what has been decided stands.

    A repeat with the same `Idempotency-Key` changes nothing, also after later changes; it is answered with the schedule
    as it is now; 404 once it was deleted, 409 if another body came with the key. Keys are kept for 24 h.
    """
    given = await strict_body(request, web.parser, web.settings.submission_bytes)
    item, size = schedule_of(web.settings, caller, schedule_id, given, _key_of(request) or new_id("put_"))
    checks = web.parameter_checks
    changed = accepted(await checks.submit(item, lambda checked: web.verbs.schedules.put.one(checked, size)))
    found = accepted(await web.reads.autocommit(get_schedule, caller, schedule_id))
    return Json(schedule_json(found), 201 if changed.created else 200)


@router.get(
    "/schedules",
    operation_id="listSchedules",
    openapi_extra=query(LIMIT, CURSOR),
    responses={200: answer("Page, newest first", SchedulePage), **BAD_CURSOR, **INVALID, **AWAY},
)
async def read_schedules(request: Request, web: Web, caller: Caller) -> Response:
    """List schedules, newest first: the caller's own, for an admin all."""
    given = strict_query(request, (LIMIT, CURSOR))
    limit = LIMIT.of(given) or USUAL_LIMIT
    page = accepted(await web.reads.autocommit(list_schedules, caller, limit=limit, after=CURSOR.of(given)))
    shown: dict[str, Any] = {"schedules": [schedule_json(each, with_run=False) for each in page.schedules]}
    return Json(shown if page.next_cursor is None else shown | {"next_cursor": page.next_cursor})


@router.post(
    "/schedules/preview",
    operation_id="previewSchedule",
    openapi_extra=body(ScheduleTimes),
    responses={200: answer("The next 10 times", NextTimes), **TOO_LARGE, **INVALID, **AWAY},
)
async def preview_schedule(request: Request, web: Web) -> Response:
    """Check nominal times and return the next ones, in the time zone and in UTC; nothing is stored."""
    given = await strict_body(request, web.parser, web.settings.submission_bytes)
    spec = spec_of(checked(ScheduleTimes, given))
    now = await web.reads.autocommit(clock)
    return Json(await asyncio.to_thread(next_times_json, spec, now, USUAL_NEXT))


@router.post(
    "/schedules/bulk",
    operation_id="changeSchedules",
    openapi_extra=body(ChangeSchedules),
    responses={200: answer("What was changed", SchedulesChanged), **TOO_LARGE, **INVALID, **AWAY},
)
async def change_schedules(request: Request, web: Web, caller: Caller) -> Response:
    """Pause, resume or delete up to 200 schedules, those named or those of a filter that the action changes.

    With `dry_run` nothing is changed; its `schedule_ids` act on exactly these. Each schedule is changed by itself, so a
    request that fails may have changed some: repeat it.
    """
    given = await strict_body(request, web.parser, web.settings.submission_bytes)
    asked = checked(ChangeSchedules, given)
    which = selection_of(asked)
    found = await web.reads.autocommit(select_schedules, caller, for_action(which, asked.action), limit=asked.limit)
    skipped: Counter[str] = Counter()
    if (unknown := len(which.schedule_ids or ()) - len(found.paused)) > 0 and not found.more:
        skipped["not found"] = unknown
    wanted = [name for name, paused in found.paused.items() if changes(asked.action, paused=paused)]
    if len(wanted) < len(found.paused):
        skipped[f"already {'paused' if asked.action == 'pause' else 'active'}"] = len(found.paused) - len(wanted)
    if not asked.dry_run:
        results = await _change(web, caller, asked, wanted)
        gone = [name for name, result in zip(wanted, results, strict=True) if isinstance(result, CoordinatorError)]
        if gone:
            skipped["deleted meanwhile"] = len(gone)
            wanted = [name for name in wanted if name not in gone]
    return Json(
        {
            "action": asked.action,
            "dry_run": asked.dry_run,
            "schedule_ids": wanted,
            "skipped": dict(skipped),
            "more": found.more,
        }
    )


@router.get(
    "/schedules/{schedule_id}",
    operation_id="getSchedule",
    responses={200: answer("The schedule", Schedule), **NO_SCHEDULE, **AWAY},
)
async def read_schedule(schedule_id: str, web: Web, caller: Caller) -> Response:
    """Return a schedule, its next time and the newest decision."""
    found = accepted(await web.reads.autocommit(get_schedule, caller, storable(schedule_id)))
    return Json(schedule_json(found))


@router.delete(
    "/schedules/{schedule_id}",
    operation_id="deleteSchedule",
    responses={200: answer("Deleted", ScheduleDeleted), **NO_SCHEDULE, **AWAY},
)
async def delete_schedule(schedule_id: str, web: Web, caller: Caller) -> Response:
    """Delete a schedule, and the times that wait. Its runs stay and go on."""
    deleted = accepted(await web.verbs.schedules.delete.one(DeleteSchedule(caller, storable(schedule_id))))
    return Json({"ok": True, "schedule_id": deleted.schedule_id})


@router.get(
    "/schedules/{schedule_id}/fires",
    operation_id="listFires",
    openapi_extra=query(LIMIT, CURSOR),
    responses={200: answer("Page, newest time first", FirePage), **BAD_CURSOR, **NO_SCHEDULE, **INVALID, **AWAY},
)
async def read_fires(schedule_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """List what was decided on the times of a schedule, newest first; kept as long as events."""
    given = strict_query(request, (LIMIT, CURSOR))
    limit, after = LIMIT.of(given) or USUAL_LIMIT, CURSOR.of(given)
    found = await web.reads.autocommit(list_fires, caller, storable(schedule_id), limit=limit, after=after)
    page = accepted(found)
    shown: dict[str, Any] = {"fires": [fire_json(fire) for fire in page.fires]}
    return Json(shown if page.next_cursor is None else shown | {"next_cursor": page.next_cursor})


@router.get(
    "/schedules/{schedule_id}/next",
    operation_id="listNextTimes",
    openapi_extra=query(COUNT),
    responses={200: answer("Next times, before jitter", NextTimes), **NO_SCHEDULE, **INVALID, **AWAY},
)
async def read_next(schedule_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Return the next nominal times of a schedule; of a paused one those after a resume now."""
    count = COUNT.of(strict_query(request, (COUNT,))) or USUAL_NEXT
    upcoming = accepted(await web.reads.autocommit(read_upcoming, caller, storable(schedule_id)))
    return Json(
        await asyncio.to_thread(next_times_json, upcoming.schedule.times, upcoming.after, min(count, upcoming.left))
    )


@router.post(
    "/schedules/{schedule_id}/pause",
    operation_id="pauseSchedule",
    openapi_extra=body(PauseSchedule, required=False),
    responses={
        200: answer("The schedule as it is now; repeating is harmless", Schedule),
        409: OTHER_VERSION,
        **NO_SCHEDULE,
        **TOO_LARGE,
        **INVALID,
        **AWAY,
    },
)
async def pause_schedule(schedule_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Pause a schedule. Times of the pause are not decided, and run only if they are backfilled."""
    return await _set_paused(schedule_id, request, web, caller, paused=True)


@router.post(
    "/schedules/{schedule_id}/resume",
    operation_id="resumeSchedule",
    openapi_extra=body(PauseSchedule, required=False),
    responses={
        200: answer("The schedule as it is now; repeating is harmless", Schedule),
        409: OTHER_VERSION,
        **NO_SCHEDULE,
        **TOO_LARGE,
        **INVALID,
        **AWAY,
    },
)
async def resume_schedule(schedule_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """End the pause of a schedule: its times count from now on."""
    return await _set_paused(schedule_id, request, web, caller, paused=False)


@router.post(
    "/schedules/{schedule_id}/trigger",
    operation_id="triggerSchedule",
    openapi_extra=body(TriggerSchedule, required=False),
    responses={
        200: answer("What was decided", Fire),
        409: problem("The key came with another body", "Idempotency-Key was used with another body"),
        **NO_SCHEDULE,
        **TOO_LARGE,
        **INVALID,
        **AWAY,
    },
)
async def trigger_schedule(schedule_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Make a fire now, paused or not, by the overlap policy. With one `Idempotency-Key` it makes one."""
    await web.caller_limits.submit(credential_of(request))
    given = await strict_body(request, web.parser, web.settings.submission_bytes, instead_of_none=b"{}")
    asked = checked(TriggerSchedule, given)
    item = Trigger(caller, storable(schedule_id), _key_of(request) or new_id("fir_"), asked.overlap)
    return Json(fire_json(accepted(await web.verbs.schedules.trigger.one(item)).fire))


@router.post(
    "/schedules/{schedule_id}/backfill",
    operation_id="backfillSchedule",
    openapi_extra=body(BackfillSchedule),
    responses={200: answer("Times that it submits", Backfill), **NO_SCHEDULE, **TOO_LARGE, **INVALID, **AWAY},
)
async def backfill_schedule(schedule_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Submit nominal times of the past that have no run, oldest first. Repeating it submits none twice."""
    given = await strict_body(request, web.parser, web.settings.submission_bytes)
    asked = checked(BackfillSchedule, given)
    item = BackfillItem(caller, storable(schedule_id), asked.begin, asked.end, asked.overlap, asked.most)
    if asked.dry_run:
        planned = accepted(await web.reads.autocommit(preview_backfill, item))
    else:
        planned = accepted(await web.verbs.schedules.backfill.one(item))
    return Json(backfill_json(planned, dry_run=asked.dry_run))


async def _set_paused(schedule_id: str, request: Request, web: Web, caller: Caller, *, paused: bool) -> Response:
    given = await strict_body(request, web.parser, web.settings.submission_bytes, instead_of_none=b"{}")
    asked = checked(PauseSchedule, given)
    item = SetPaused(caller, storable(schedule_id), paused, asked.note, asked.expect_version)
    accepted(await web.verbs.schedules.set_paused.one(item))
    return Json(schedule_json(accepted(await web.reads.autocommit(get_schedule, caller, item.schedule_id))))


async def _change(
    web: Web, caller: Caller, asked: ChangeSchedules, schedule_ids: Sequence[str]
) -> Sequence[Changed | Deleted | CoordinatorError]:
    verbs, paused = web.verbs.schedules, asked.action == "pause"
    results: Sequence[Changed | Deleted | CoordinatorError | Unavailable]
    if asked.action == "delete":
        results = await verbs.delete.many((DeleteSchedule(caller, name), 0) for name in schedule_ids)
    else:
        items = [SetPaused(caller, name, paused, asked.note) for name in schedule_ids]
        results = await verbs.set_paused.many((item, 0) for item in items)
    done: list[Changed | Deleted | CoordinatorError] = []
    for result in results:
        if isinstance(result, Unavailable):
            raise result
        done.append(result)
    return done


def _key_of(request: Request) -> str | None:
    return idempotency_key(header_of(request.scope, b"idempotency-key"), ("header", "Idempotency-Key"))
