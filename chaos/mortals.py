import time
import uuid

from sqlalchemy import Connection, text

from chaos.ledger import Delivery, Ledger, Report
from chaos.wire import Wire

# Lost after 12 s (cluster.SETTINGS): twice that in time in which the coordinator served, as long again as an outage may
# last before it is recorded, and some seconds for a pass.
BOUND_SECONDS = 2 * 12 + 20

_LATE = text("""
    SELECT r.run_id, r.status, served.seconds
    FROM runs r CROSS JOIN LATERAL (
        SELECT extract(epoch FROM coalesce(r.completed_at, clock_timestamp()) - r.started_at - coalesce((
            SELECT sum(upper(part) - lower(part))
            FROM unnest((SELECT range_agg(tstzrange(g.started_at, g.ended_at)) FROM gaps g WHERE g.kind <> 'runners')
                        * tstzmultirange(tstzrange(r.started_at, coalesce(r.completed_at, clock_timestamp()))))
                AS part), interval '0')) AS seconds) served
    WHERE r.run_id = ANY(CAST(:run_ids AS text[])) AND served.seconds > :bound
""")


async def die_with_a_run(wire: Wire, name: str) -> None:
    body = {
        "hostname": name,
        "project_dir": "/chaos",
        "executor_profile": "mortal",
        "executor": {"type": "autonomous"},
        "tags": [name],
        "require_matching_tags": True,
        "instance_id": uuid.uuid4().hex,
    }
    registered, _ = await wire.decided("register", "POST", "/runner/register", json=body)
    runner_id = registered.json()["runner_id"]
    demands = {"parameters": {"prompt": "the last one"}, "additional_demands": {"tags": [name]}}
    key = uuid.uuid4().hex
    if await wire.submit(key, {"type": "start_session", "labels": {"key": key}, **demands}) is None:
        return
    while True:
        asked = time.monotonic()
        answer = await wire.call("poll", "GET", "/runner/runs", params={"runner_id": runner_id, "wait": 4})
        if answer is not None and answer.status_code == 200 and "run" in answer.json():
            break
    run = answer.json()["run"]
    wire.ledger.deliveries.append(Delivery(run["run_id"], run["claim_token"], name, asked, time.monotonic()))
    report = {"runner_id": runner_id, "claim_token": run["claim_token"]}
    started, begun = await wire.decided("started", "POST", f"/runner/runs/{run['run_id']}/started", json=report)
    wire.ledger.reports.append(Report(run["run_id"], run["claim_token"], "started", started.status_code, begun))
    if started.status_code == 200:
        wire.ledger.orphaned.append(run["run_id"])


def late_losses(connection: Connection, ledger: Ledger) -> list[str]:
    rows = connection.execute(_LATE, {"run_ids": ledger.orphaned, "bound": BOUND_SECONDS})
    return [f"{row.run_id} is {row.status} after {row.seconds:.0f} s of its runner's silence" for row in rows]
