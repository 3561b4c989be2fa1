"""Answer the same polls by one statement and by the verbs of all cases: the same answers, rows and events."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from models.claims.claim import Ask
from models.claims.known_offers import known_offers
from models.claims.matching import OFFER_COLUMNS_OF_N, Demands, Offer, match_sets, offer_of
from models.claims.plain_polls import PlainAnswer, answer_plain_polls, claim_plain_parked
from models.claims.polls import Answer, PollAnswer, answer_polls, claim_parked
from models.core.ids import new_id
from models.core.plain import NotPlain
from models.runs.submit import submit_runs
from models.schema.sql import sql
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.db_verbs import DbVerbs, start_submission

TAGS = st.sets(st.sampled_from("ab"))
OWNERS = st.sampled_from([None, None, None, "one", "other"])
STATES = st.sampled_from([""] * 40 + ["left", "leaving", "told", "lost", "quiet", "stop", "capacity", "draining"])
Verb: TypeAlias = Callable[[Connection, Sequence[Ask]], list[Answer]]
PlainVerb: TypeAlias = Callable[[Connection, Sequence[Ask]], list[PlainAnswer]]
_numbers = count(1)


@dataclass(frozen=True)
class DrawnRunner:
    tags: set[str]
    owner: str | None
    state: str


@dataclass(frozen=True)
class DrawnRun:
    tags: set[str]
    priority: int
    excludes: list[int]
    delayed: bool


@dataclass(frozen=True)
class DrawnPoll:
    runner: int
    wanted: int
    subject: str | None
    knows: str
    odd: bool


RUNNERS = st.lists(st.builds(DrawnRunner, TAGS, OWNERS, STATES), min_size=1, max_size=4)
RUNS = st.lists(
    st.builds(
        DrawnRun,
        TAGS,
        st.integers(-1, 1),
        st.one_of([st.just([])] * 5 + [st.lists(st.integers(0, 3), max_size=3)]),
        st.sampled_from([False, False, False, True]),
    ),
    max_size=7,
)
POLLS = st.lists(
    st.builds(
        DrawnPoll,
        st.integers(0, 3),
        st.integers(0, 3),
        st.sampled_from([*[None] * 6, "one"]),
        st.sampled_from(["the offer"] * 12 + ["its ask"] * 12 + ["former", "nothing", "replaced"]),
        st.sampled_from([False] * 12 + [True]),
    ),
    min_size=1,
    max_size=5,
)
MANY = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)

_CHANGE = {
    "left": "UPDATE runners SET left_at = now() WHERE runner_id = :r",
    "leaving": "UPDATE runners SET leave_requested_at = now() WHERE runner_id = :r",
    "told": "UPDATE runners SET leave_requested_at = now(), leave_told_at = now() WHERE runner_id = :r",
    "lost": "UPDATE runners SET lost_at = now() WHERE runner_id = :r",
    "quiet": "UPDATE runners SET last_seen = now() - interval '40 seconds' WHERE runner_id = :r",
    "draining": "UPDATE runners SET draining_since = now() WHERE runner_id = :r",
    "capacity": "UPDATE runners SET capacity = 1 WHERE runner_id = :r",
    "stop": """INSERT INTO stop_commands (runner_id, registration, session_id, deadline_at)
               SELECT runner_id, registration, 'ses_of_' || runner_id, now() FROM runners WHERE runner_id = :r""",
}
_RUNNER = text("""
    INSERT INTO runners (runner_id, hostname, project_dir, executor_profile, executor_type, tags, owner, told_interval)
    VALUES (:r, 'host', '/p', 'e', 'autonomous', CAST(:tags AS text[]), :owner, 60)
""")
_OFFER = sql("SELECT $offer FROM runners n WHERE n.runner_id = :r", offer=OFFER_COLUMNS_OF_N)
_STATE = (
    """SELECT run_id, status, ready, runner_id, registration, claim_poll_id, claimed_by, claimed_by_registration,
           claim_token IS NULL, delivered_at IS NULL, unheld_beats, round(extract(epoch FROM claim_deadline_at - claimed_at))
       FROM runs ORDER BY run_id""",
    "SELECT poll_id, runner_id, registration, instance, wanted, subject FROM waiting_polls ORDER BY poll_id",
    f"SELECT kind, session_id, CAST(frame AS text), owner, run_id, event_type FROM {RECORDED_EVENTS} ORDER BY id",
    "SELECT stop_id, sent_at IS NULL FROM stop_commands ORDER BY stop_id",
    "SELECT runner_id, leave_told_at IS NULL, lost_at FROM runners ORDER BY runner_id",
)


def stored(conn: Connection) -> list[Any]:
    return [conn.execute(text(statement)).all() for statement in _STATE]


def made(conn: Connection, runners: Sequence[DrawnRunner], runs: Sequence[DrawnRun]) -> list[Offer]:
    """Store the fleet and the runs; return the offers."""
    offers: list[Offer] = []
    for drawn in runners:
        runner_id = f"lnch_{next(_numbers)}"
        conn.execute(_RUNNER, {"r": runner_id, "tags": sorted(drawn.tags), "owner": drawn.owner})
        if drawn.state:
            conn.execute(text(_CHANGE[drawn.state]), {"r": runner_id})
        offers.append(offer_of(*conn.execute(_OFFER, {"r": runner_id}).one()))
        known_offers(conn).note({runner_id: offers[-1]})
    items = [
        start_submission(additional_demands=Demands(tags=tuple(sorted(run.tags))), priority=run.priority)
        for run in runs
    ]
    submit_runs(conn, items)
    for item, run in zip(items, runs, strict=True):
        excluded = [offers[place].registration for place in run.excludes if place < len(offers)]
        conn.execute(
            text("UPDATE runs SET not_for = CAST(:excluded AS bigint[]), ready = :ready WHERE run_id = :run_id"),
            {"excluded": excluded or None, "ready": not run.delayed, "run_id": item.run_id},
        )
    return offers


def asked(conn: Connection, polls: Sequence[DrawnPoll], *, parked: bool) -> list[Ask]:
    """Return the polls as the process knows them, some of them parked."""
    newest = conn.execute(
        text("SELECT runner_id, registered_at, registration FROM runners ORDER BY registration DESC LIMIT 4")
    ).all()[::-1]
    asks: list[Ask] = []
    for poll in polls:
        runner_id, registered_at, _ = newest[poll.runner % len(newest)]
        offer = known_offers(conn).get(runner_id)
        assert offer is not None
        ask = Ask(new_id("poll_"), runner_id, poll.wanted, "web-1", poll.subject)
        match poll.knows:
            case "its ask":
                ask = replace(ask, offer=offer, registered_at=registered_at)
            case "former":
                ask = replace(ask, offer=replace(offer, registration=offer.registration - 1_000_000))
            case "nothing":
                ask = replace(ask, runner_id=f"{runner_id}-unknown")
            case "replaced":
                ask = replace(ask, offer=offer, registered_at=registered_at.replace(year=2000))
        asks.append(ask)
        if poll.odd != parked:
            values = {"p": ask.poll_id, "r": ask.runner_id, "w": ask.wanted, "s": ask.subject, "n": offer.registration}
            conn.execute(
                text(
                    """INSERT INTO waiting_polls (poll_id, runner_id, registration, instance, wanted, subject)
                       VALUES (:p, :r, :n, 'web-1', :w, :s)""",
                ),
                values,
            )
    return asks


def shown(answer: Answer | PlainAnswer) -> Any:
    """Return an answer without the token and the moment of its claims."""
    if not isinstance(answer, PollAnswer):
        return answer
    runs = [replace(run, claim_token=None, claimed_at=None) for run in answer.runs]
    return replace(answer, runs=runs), answer.offer, answer.registered_at


def compared(conn: Connection, asks: Sequence[Ask], plain: PlainVerb, verb: Verb) -> Counter[str]:
    """Require the plain answers to be those of the verb for the same polls; return how many there were of a kind."""
    start = conn.begin_nested()
    answers = plain(conn, asks)
    state = stored(conn)
    start.rollback()
    concerned = [ask for ask, answer in zip(asks, answers, strict=True) if not isinstance(answer, NotPlain)]
    expected = verb(conn, concerned) if concerned else []
    assert [shown(answer) for answer in answers if not isinstance(answer, NotPlain)] == list(map(shown, expected))
    assert state == stored(conn)
    return Counter(
        "left" if isinstance(answer, NotPlain) else "runs" if answer.runs else "parked" for answer in answers
    )


@pytest.mark.parametrize(
    ("plain", "verb", "parked"),
    [(answer_plain_polls, answer_polls, False), (claim_plain_parked, claim_parked, True)],
)
def test_one_statement_answers_as_the_verb_of_all_cases(
    db: DbVerbs, plain: PlainVerb, verb: Verb, *, parked: bool
) -> None:
    kinds: Counter[str] = Counter()

    @MANY
    @given(runners=RUNNERS, runs=RUNS, polls=POLLS)
    def compare(runners: list[DrawnRunner], runs: list[DrawnRun], polls: list[DrawnPoll]) -> None:
        with db.engine.connect() as conn:
            made(conn, runners, runs)
            match_sets(conn).refresh(conn)
            asks = asked(conn, polls, parked=parked)
            kinds.update(compared(conn, asks, plain, verb))
            conn.rollback()

    compare()
    assert min(kinds[kind] for kind in ("left", "runs", "parked")) > 20, kinds
