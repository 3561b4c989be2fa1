"""Break the rule that a commit is covered only by a pass that began after it: the scenario that guards it must notice."""

import pytest

from app.feed.numbering import Numbering
from models.feed import sequence
from models.feed.sequence import Numbered
from tests.crashes import test_numbering_after_commits as after_commits
from tests.crashes.test_numbering_after_commits import still, web  # noqa: F401 -- fixtures of the scenario
from tests.races import test_numbering_passes as passes
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices
from tests.support.web import WebInThread


def test_commit_left_to_the_pass_under_way_is_noticed(
    web: WebInThread,  # noqa: F811 -- the fixture
    db: DbVerbs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forget at the end of a pass what came during it."""
    take = Numbering._take

    def forget(numbering: Numbering, numbered: Numbered) -> None:
        numbering._due.clear()
        take(numbering, numbered)

    monkeypatch.setattr(Numbering, "_take", forget)
    with pytest.raises(AssertionError, match="a pass that began after the commit"):
        after_commits.event_committed_during_a_pass_is_numbered(web, db, monkeypatch)


def test_busy_pass_taken_for_ones_own_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Return as if nothing were unnumbered when another pass holds the head."""
    break_statement(
        monkeypatch,
        sequence,
        "_NUMBER_UNLESS_BUSY",
        {"unnumbered.found, unnumbered": "locked.last_pos IS NOT NULL, unnumbered"},
    )
    notices(passes.event_committed_during_another_pass_is_numbered, db, "the other pass was taken for one")
