"""Break the bounds of searches on purpose: the scenarios that guard them must notice."""

from itertools import count

import pytest
from sqlalchemy import Connection

from models.runs import search
from tests.plans import test_read_plans
from tests.plans.test_read_plans import frequent_label_is_not_read_wholly, search_stops_when_time_is_over

FILL = test_read_plans.FILL


def test_search_without_limit_of_time_is_noticed(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let time go backwards: each step has more left than the one before."""
    moments = count(0, -1)
    monkeypatch.setattr(search, "monotonic", lambda: float(next(moments)))
    with pytest.raises(AssertionError, match="went on"):
        search_stops_when_time_is_over(conn)


def test_labels_read_without_an_estimate_are_noticed(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index entry of each run that has the label would be read before the first row."""
    monkeypatch.setattr(search, "LABELLED_ENTRIES", float("inf"))
    with pytest.raises(AssertionError, match="whole label"):
        frequent_label_is_not_read_wholly(conn)
