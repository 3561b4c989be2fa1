"""Check passes of numbering that wait for no other: repeats of busy ones leave no event without a position."""

import pytest

from models.feed import sequence
from models.feed.sequence import Numbered, number_unless_busy, sequence_feed
from models.state.events_outbox import record_events
from runtime.postgres import autocommit
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.contenders import run_in_threads, steppers
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import assert_dense, execute, row, single


def run_pass(db: DbVerbs) -> Numbered | None:
    with autocommit(db.engine) as connection:
        return number_unless_busy(connection)


def event_committed_during_another_pass_is_numbered(db: DbVerbs) -> None:
    """Commit an event when the other pass has begun and not ended."""
    db.do(record_events, [row(1)])
    with steppers(db.engine, 1) as (other,):
        assert other.do(sequence_feed).result(30) == 1
        db.do(record_events, [row(2)])
        first = run_pass(db)
        other.commit()
    assert first is None, "the other pass was taken for one that covers the event"
    assert run_pass(db) == Numbered(1, 2)
    assert db.count(RECORDED_EVENTS, "feed_pos IS NULL") == 0


def test_event_committed_during_another_pass_is_numbered_by_a_repeat(db: DbVerbs) -> None:
    """Return None at once while another pass is under way."""
    event_committed_during_another_pass_is_numbered(db)


def test_pass_with_nothing_to_number_locks_nothing(db: DbVerbs) -> None:
    """Return the position that covers all commits, also while the head is locked."""
    db.do(record_events, [row(1), row(2)])
    assert run_pass(db) == Numbered(2, 2)
    with steppers(db.engine, 1) as (holder,):
        holder.do(execute, "SELECT 1 FROM feed_head FOR UPDATE")
        assert run_pass(db) == Numbered(0, 2)


def test_full_pass_says_that_there_is_more(db: DbVerbs) -> None:
    db.do(record_events, [single(place) for place in range(sequence.PASS_EVENTS + 1)])
    assert run_pass(db) == Numbered(sequence.PASS_EVENTS, sequence.PASS_EVENTS)
    assert run_pass(db) == Numbered(1, sequence.PASS_EVENTS + 1)
    assert_dense(db)


@pytest.mark.parametrize("crowd", [2, 8, 32])
def test_contenders_that_repeat_busy_passes_number_everything(db: DbVerbs, crowd: int) -> None:
    """Number after each own commit; the passes tile the positions, and every head returned is exact."""

    def write_and_number(place: int) -> list[Numbered]:
        passes = []
        for turn in range(10):
            db.do(record_events, [row(place * 100 + turn), row(place * 100 + turn)])
            while (done := run_pass(db)) is None:
                pass
            passes.append(done)
        return passes

    passes = [one for passes in run_in_threads(crowd, write_and_number) for one in passes if one.count]
    assert db.count(RECORDED_EVENTS, "feed_pos IS NULL") == 0
    ends = sorted(one.head for one in passes)
    begins = sorted(one.head - one.count for one in passes)
    assert begins == [0, *ends[:-1]]
    assert ends[-1] == 20 * crowd
    assert_dense(db)
