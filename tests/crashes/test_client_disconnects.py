"""Check clients that disconnect within a call: runs on their way to them go to other runners at once."""

import asyncio
import random
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from testkit.cluster import Cluster
from testkit.waiting import eventually_async
from tests.support.cut_calls import call_bytes, content_of, hold, send_part
from tests.support.db_verbs import DbVerbs
from tests.support.run_history import assert_one_history, claims
from tests.support.web import PROMPT, WebClient

ROUNDS, RUNNERS = 8, 10
# Deadlines are too long to matter: only a release returns a run within this test.
PATIENT = {"claim_timeout_seconds": 600, "start_timeout_seconds": 600, "no_match_timeout_seconds": 600}


async def test_runs_sent_to_disconnected_clients_reach_others_at_once(cluster: Cluster, engine: Engine) -> None:
    """Disconnect at random moments around the assignment, by dispatch and by the polls' own claims: each run reaches
    one runner.
    """
    webs, _ = await asyncio.to_thread(cluster.start_processes, **PATIENT)
    urls = [web.url for web in webs]
    received: list[str] = []
    submitted: list[str] = []
    async with httpx.AsyncClient(timeout=40, trust_env=False) as http:
        hasty = [await register(http, urls[0], f"hasty-{place}") for place in range(RUNNERS)]
        patient = await register(http, urls[1], "patient")
        for number in range(ROUNDS):
            calls = [hang_up_somewhen(urls[place % 2], hasty[place], number) for place in range(RUNNERS)]
            cut = asyncio.gather(*calls)
            for place in range(RUNNERS):
                await asyncio.sleep(random.uniform(0, 0.01))
                answer = await http.post(
                    f"{urls[place % 2]}/runs", json={"type": "start_session", "parameters": PROMPT}
                )
                submitted.append(answer.json()["run_id"])
            received.extend(run_id for run_id in await cut if run_id)
            await eventually_async(lambda: took_the_rest(http, urls[1], patient, received, submitted))
    assert sorted(received) == sorted(submitted)
    taken_back = sum(claims(history) - 1 for history in assert_one_history(engine).values())
    assert taken_back > 0


async def register(http: httpx.AsyncClient, url: str, name: str) -> str:
    body = {"hostname": name, "project_dir": "/p", "executor_profile": "e", "executor": {"type": "autonomous"}}
    return str((await http.post(f"{url}/runner/register", json=body)).json()["runner_id"])


async def hang_up_somewhen(url: str, runner_id: str, number: int) -> str:
    """Poll, disconnect after a moment, and return the run that had arrived by then."""
    call = await hold(url, call_bytes(url, "GET", f"/runner/runs?runner_id={runner_id}&wait=30"))
    await asyncio.sleep(random.uniform(0, 0.02 * (number + 1)))
    answer = content_of(await call.hang_up() or b"HTTP/1.1 204 \r\n\r\n")
    return str(answer["run"]["run_id"]) if answer else ""


async def took_the_rest(
    http: httpx.AsyncClient, url: str, runner_id: str, received: list[str], submitted: list[str]
) -> bool:
    """Poll for the runs that the others did not receive; return whether every run has reached a runner."""
    answer = await http.get(f"{url}/runner/runs", params={"runner_id": runner_id, "max": 50, "wait": 1})
    if answer.status_code == 200:
        received += [run["run_id"] for run in answer.json()["runs"]]
    return len(received) >= len(submitted)


@pytest.mark.parametrize("end", ["FIN", "RST"])
def test_submission_cut_at_any_byte_is_run_or_nothing(cluster: Cluster, db: DbVerbs, end: str) -> None:
    """Create nothing for half a request; create one run for a whole one whose client left, also when it is repeated."""
    web = cluster.start_web()
    body = {"type": "start_session", "session_id": "s", "parameters": {"prompt": "ä" * 40}, "labels": {"a": "b"}}
    request = call_bytes(web.url, "POST", "/runs", body, Idempotency_Key="k", Content_Type="application/json")
    for length in range(len(request)):
        send_part(web.url, request[:length], reset=end == "RST")
    client = WebClient(web.url)
    assert client.get("/runs").json()["runs"] == []
    assert db.count("sessions") == db.count("idempotency_keys") == 0
    send_part(web.url, request, reset=False)
    answer = client.post("/runs", body, **{"Idempotency-Key": "k"})
    assert answer.status_code in {200, 201}
    assert [run["run_id"] for run in client.get("/runs").json()["runs"]] == [answer.json()["run_id"]]
    assert_one_history(db.engine)
    client.close()
    assert web.alive
    assert "Traceback" not in web.log()


def test_batch_cut_at_any_place_is_all_or_nothing(cluster: Cluster, db: DbVerbs) -> None:
    """Create no run for a list whose end is missing."""
    web = cluster.start_web()
    runs: list[dict[str, Any]] = [
        {"type": "start_session", "parameters": {"prompt": f"{n}"}, "idempotency_key": str(n)} for n in range(50)
    ]
    request = call_bytes(web.url, "POST", "/runs/batch", {"runs": runs}, Content_Type="application/json")
    for length in random.sample(range(len(request)), 60):
        send_part(web.url, request[:length], reset=length % 2 == 0)
    client = WebClient(web.url)
    assert db.count("runs") == 0
    results = client.post("/runs/batch", {"runs": runs}).json()["results"]
    assert [result["code"] for result in results] == [201] * 50
    assert db.count("runs") == 50
    client.close()
    assert "Traceback" not in web.log()
