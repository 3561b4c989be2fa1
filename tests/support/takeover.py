"""Two owners' runners that offer the same four values, and all that one may try with the other's work."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from models.core.callers import Role
from tests.support.callers import client_with, make_key
from tests.support.db_verbs import DbVerbs
from tests.support.tenants import CALLS, MARK, Names, answers_as_for_unknown, good
from tests.support.web import WebClient

LEAVE = "DELETE /runners/{runner_id}"
# Give both runners the same four values.
BOX: dict[str, Any] = {"instance_id": "first"}
# Try reads, forgeries, deletes and reports: every call that names a session or a run.
ATTACKS = tuple(name for name in CALLS if name not in {"GET /runner/runs", "POST /runner/heartbeat", LEAVE})


@dataclass(frozen=True)
class Rivals:
    """``machine`` ran Bob's session and is gone; ``mallory`` has a runner key of another owner."""

    bob: WebClient
    machine: WebClient
    mallory: WebClient
    session: str
    run: str
    runner: str

    def attack(self, names: tuple[str, ...] = ATTACKS) -> None:
        """Register the same four values with the other key, then try everything: each answer is that for an
        unknown id.
        """
        mine = self.mallory.register(MARK, instance_id="second")
        for name in names:
            theirs = Names(self.session, self.run, mine)
            answers_as_for_unknown(self.mallory, name, theirs, Names("never-was", "run_never_was", mine))


@contextmanager
def rivals(url: str, db: DbVerbs) -> Iterator[Rivals]:
    """Finish Bob's session, with an event, a result and a binding of the runner that executed it."""
    roles = {"bob": Role.USER, "machine": Role.RUNNER, "mallory": Role.RUNNER}
    with ExitStack() as stack:
        who = {name: stack.enter_context(client_with(url, make_key(db, role, name))) for name, role in roles.items()}
        runner_id = who["machine"].register(MARK, **BOX)
        who["bob"].submit(session_id="bobs", parameters={"prompt": MARK}, labels={"team": MARK})
        run = who["machine"].claim(runner_id)
        good(who["machine"].report(run, runner_id, "started"))
        where = {"executor_session_id": MARK, "hostname": MARK, "executor_profile": "e"}
        good(who["machine"].post("/sessions/bobs/bind", where))
        result = {"event_type": "result", "session_id": "bobs", "timestamp": "t", "result_text": MARK}
        good(who["machine"].post("/sessions/bobs/events", result))
        good(who["machine"].report(run, runner_id, "completed"))
        yield Rivals(**who, session="bobs", run=run["run_id"], runner=runner_id)
