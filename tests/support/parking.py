"""Steps of a poll that parks beside a submission, and every order in which these can happen."""

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import TypeAlias

from sqlalchemy import Connection

from models.claims.claim import Ask
from models.claims.parking import any_poll_parked
from models.claims.polls import Answer, answer_polls
from models.core.plain import NotPlain
from tests.support.db_verbs import DbVerbs, Runner, poll_request, told

Step: TypeAlias = str
FIND_NOTHING, PARK, CLAIM, SUBMIT, LOOK = "finds nothing", "is parked", "claims once more", "submitted", "looked"


def orders(*sequences: Sequence[Step]) -> list[tuple[Step, ...]]:
    """Yield every order of all the steps in which each sequence keeps its own."""
    steps = [step for sequence in sequences for step in sequence]
    return [
        order
        for order in permutations(steps)
        if all([step for step in order if step in sequence] == list(sequence) for sequence in sequences)
    ]


def is_noticed(
    db: DbVerbs,
    order: Sequence[Step],
    answer: Callable[[Connection, Sequence[Ask]], Sequence[Answer | NotPlain]] = answer_polls,
) -> bool:
    """Return whether the poll got the run at once, or the submitter learned that a poll waits."""
    poll = poll_request(db.runner())
    if answer is not answer_polls:
        # A first poll, by which this process knows the runner's offer.
        db.give_up(db.park(Runner(poll.runner_id, 0)))
    runs: list[str] = []
    looks: list[bool] = []
    with db.engine.connect() as parking:

        def claim() -> None:
            if not runs:
                runs.extend(run.run_id for run in db.second(poll)[0].runs)

        steps: dict[Step, Callable[[], object]] = {
            FIND_NOTHING: lambda: runs.extend(run.run_id for run in told(answer(parking, [poll])[0]).runs),
            PARK: parking.commit,
            CLAIM: claim,
            SUBMIT: db.start,
            LOOK: lambda: looks.append(db.do(any_poll_parked)),
        }
        for step in order:
            steps[step]()
    return bool(runs) or any(looks)
