"""Draw sequences of drains, polls, dispatch and registrations: no draining runner gets a run, and none waits after it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from models.claims.claim import Ask, ClaimPreview
from models.claims.dispatch import dispatch_preview, preview_waiting
from models.claims.matching import Demands
from models.claims.polls import PollAnswer
from models.runners.register import Registered, register_runners
from models.runners.registration import Registration
from tests.support.clocks import fall_silent
from tests.support.db_verbs import DbVerbs, Runner, poll_request
from tests.support.runner_drains import claimed_by, drain, registered_by_the_last_release, undrain

_numbers = count(1)
STEPS = st.lists(
    st.sampled_from(
        [
            *["submit", "submit", "poll", "poll", "second call", "re-check", "dispatch", "look", "assign"],
            *["drain", "undo", "register", "register anew", "register at the last release", "forget the plain case"],
        ]
    ),
    min_size=8,
    max_size=30,
)


@dataclass
class Model:
    """Play calls of one runner, which alone takes the runs of this example. ``had``: its runs when its drain began."""

    db: DbVerbs
    tag: str
    capacity: int | None
    runner: Runner = field(init=False)
    polls: list[Ask] = field(default_factory=list)
    looked: ClaimPreview = field(default_factory=ClaimPreview)
    had: set[str] | None = None
    processes: int = 0

    def __post_init__(self) -> None:
        self.register_anew()

    def do(self, step: str) -> None:
        getattr(self, step.replace(" ", "_").replace("-", "_"))()
        if self.had is not None:
            assert claimed_by(self.db, self.runner.runner_id) == self.had, f"given a run by {step}"

    def submit(self) -> None:
        self.db.start(additional_demands=Demands(tags=(self.tag,)))

    def poll(self) -> None:
        poll = poll_request(self.runner)
        if not self.db.answer(poll)[0].runs:
            self.polls.append(poll)

    def second_call(self) -> None:
        self._ask(self.db.second)

    def re_check(self) -> None:
        self._ask(self.db.recheck)

    def _ask(self, verb: Callable[[Ask], list[PollAnswer]]) -> None:
        for poll in list(self.polls):
            if not verb(poll)[0].parked:
                self.polls.remove(poll)

    def dispatch(self) -> None:
        self.db.dispatch()

    def look(self) -> None:
        self.looked = self.db.do(preview_waiting)

    def assign(self) -> None:
        self.db.do(dispatch_preview, self.looked)

    def drain(self) -> None:
        drain(self.db, self.runner.runner_id)
        if self.had is None:
            self.had = claimed_by(self.db, self.runner.runner_id)

    def undo(self) -> None:
        undrain(self.db, self.runner.runner_id)
        self.had = None

    def register(self) -> None:
        """Reconnect as the same process."""
        offer = Registration(
            f"host-{self.tag}",
            "/p",
            "e",
            (self.tag,),
            executor_type="autonomous",
            capacity=self.capacity,
            instance_id=f"process {self.processes}",
        )
        (registered,) = self.db.do(register_runners, [offer])
        assert isinstance(registered, Registered), registered
        self.runner = Runner(registered.runner_id, 0)

    def register_anew(self) -> None:
        """Take the place of a process that fell silent; it loses its runs, and its polls end."""
        if self.processes:
            fall_silent(self.db, self.runner, 999)
        self.processes += 1
        self.register()
        self.polls.clear()
        if self.had is not None:
            self.had = claimed_by(self.db, self.runner.runner_id)

    def register_at_the_last_release(self) -> None:
        registered_by_the_last_release(self.db, self.runner.runner_id, self.capacity)

    def forget_the_plain_case(self) -> None:
        self.db.fast_paths = not self.db.fast_paths

    def check_the_end(self) -> None:
        """Undo the drain: a re-check alone leaves no poll waiting beside a ready run, unless the runner is full."""
        self.undo()
        self.re_check()
        pending = self.db.count("runs", "status = 'pending' AND ready AND demands::text LIKE :t", t=f"%{self.tag}%")
        in_hand = self.db.count("runs", "status = 'claimed' AND runner_id = :r", r=self.runner.runner_id)
        is_full = self.capacity is not None and in_hand >= self.capacity
        assert not self.polls or not pending or is_full, "a run waits after the drain"


def test_no_order_of_calls_gives_a_draining_runner_a_run_or_loses_one_after_it(db: DbVerbs) -> None:
    @settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(steps=STEPS, capacity=st.sampled_from([None, None, 2]))
    def play(steps: list[str], capacity: int | None) -> None:
        db.fast_paths = True
        model = Model(db, f"tag-{next(_numbers)}", capacity)
        for step in steps:
            model.do(step)
        model.check_the_end()
        db.rows("TRUNCATE waiting_polls")

    play()
