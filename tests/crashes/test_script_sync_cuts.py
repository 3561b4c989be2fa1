"""Cut off answers that name scripts: each script is named again until an answer arrived."""

import asyncio
from typing import Any

from sqlalchemy import Engine

from testkit.cluster import Cluster
from tests.support.clocks import pass_time
from tests.support.cut_calls import call_bytes, content_of, hold
from tests.support.db_verbs import DbVerbs
from tests.support.registry import add_script
from tests.support.web import WebClient

PROCEDURAL: dict[str, Any] = {"executor": {"type": "procedural", "command": "c"}}
ROUNDS = 6


async def test_scripts_of_cut_answers_are_named_again(cluster: Cluster, engine: Engine) -> None:
    """Disconnect at different moments around a change; then kill the process between its commit and the answer."""
    webs, _ = await asyncio.to_thread(cluster.start_processes)
    db, other = DbVerbs(engine), WebClient(webs[1].url)
    runner = other.register("p", **PROCEDURAL)
    received: set[str] = set()
    for number in range(ROUNDS):
        path = f"/runner/runs?runner_id={runner}&wait=30"
        call = await hold(webs[number % 2].url, call_bytes(webs[number % 2].url, "GET", path))
        await asyncio.to_thread(add_script, db, f"s{number}")
        await asyncio.sleep(0.02 * number)
        received |= named(content_of(await call.hang_up() or b"HTTP/1.1 204 \r\n\r\n"))
    # What an answer named that no runner got: its process died before it was written, or confirmed it.
    add_script(db, "last")
    db.rows(
        "UPDATE runner_script_syncs SET sent_at = now(), sent_poll = 'of a killed process' WHERE script_name = 'last'"
    )
    await asyncio.to_thread(webs[0].kill)
    pass_time(db, "runner_script_syncs", "sent_at", 11)
    while len(received) <= ROUNDS:
        answer = await asyncio.to_thread(other.poll, runner, 20)
        assert answer.status_code == 200, (received, answer.status_code)
        received |= named(answer.json())
    other.close()
    assert received == {f"s{number}" for number in range(ROUNDS)} | {"last"}


def named(answer: Any) -> set[str]:
    return set(answer["sync_scripts"]) if answer else set()
