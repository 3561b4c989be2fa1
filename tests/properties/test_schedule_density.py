"""Times of schedules do not depend on where a computation begins, also around switches of the clock."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from models.schedules.spec import Spec
from models.schedules.times import due_times, newest_times

EXPRESSIONS = (
    "30 2 * * *",
    "15,45 1,2 * * *",
    "*/15 * * * *",
    "45 * * * *",
    "5 */2 * * *",
    "*/7 1-3 * * *",
    "0 0 * * *",
    "59 23 * * SUN",
    "0,30 * 4,25,29 * *",
    "*/20 */10 * * * *",
    "10 0 2 * * *",
)
# Switches of the clock, in UTC: both of each zone; Beirut's are at midnight.
SWITCHES = (
    ("Europe/Berlin", "2026-03-29T01:00"),
    ("Europe/Berlin", "2026-10-25T01:00"),
    ("America/New_York", "2026-03-08T07:00"),
    ("America/New_York", "2026-11-01T06:00"),
    ("Australia/Lord_Howe", "2026-10-03T15:30"),
    ("Australia/Lord_Howe", "2026-04-04T15:00"),
    ("Asia/Beirut", "2026-03-28T22:00"),
    ("Asia/Beirut", "2026-10-24T21:00"),
    ("UTC", "2026-01-01T00:00"),
)
CUTS = st.lists(st.integers(-5 * 3600, 5 * 3600), min_size=2, max_size=6, unique=True).map(sorted)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(SWITCHES), st.lists(st.sampled_from(EXPRESSIONS), min_size=1, max_size=2, unique=True), CUTS, CUTS
)
def test_parts_of_a_stretch_have_the_times_of_the_whole(
    switch: tuple[str, str], expressions: list[str], cuts: list[int], fractions: list[int]
) -> None:
    """Cut it anywhere, as restarts do: no time is lost, none comes twice, all are in order."""
    name, at = switch
    center = datetime.fromisoformat(at).replace(tzinfo=UTC)
    spec = Spec(cron=tuple(expressions), timezone=name)
    moments = [center + timedelta(seconds=cut, microseconds=fractions[0] % 2) for cut in cuts]
    whole = due_times(spec, moments[0], moments[-1], 10_000)
    parts = [moment for begin, end in pairwise(moments) for moment in due_times(spec, begin, end, 10_000)]
    assert parts == whole
    assert all(before < after for before, after in pairwise(whole))
    stepped: list[datetime] = []
    last = moments[0]
    for _ in whole[:20]:
        (last,) = due_times(spec, last, moments[-1], 1)
        stepped.append(last)
    assert stepped == whole[:20]
    assert newest_times(spec, moments[0], moments[-1], 5) == whole[-5:]
