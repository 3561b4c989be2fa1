"""Errors of the client between processes."""

import copy
import pickle

import pytest

from coordinator_client import HistoryLost, Refused, Unreachable


@pytest.mark.parametrize(
    "error",
    [
        Refused(409, {"message": "taken"}, 2.5, "req_1"),
        Unreachable({"http://a": "no answer"}, too_large=True, retry_after=1.5, request_id="req_1"),
        HistoryLost("expired"),
    ],
)
def test_error_can_be_pickled(error: Exception) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own bytes
        assert type(again) is type(error)
        assert (str(again), vars(again)) == (str(error), vars(error))
