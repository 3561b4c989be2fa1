"""Check which frames the feed buffer gives to each client, and which it forgets."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.feed.buffer import CHUNK_BYTES, FeedBuffer, Frame, encode_frame
from models.feed.pages import FeedEvent, FeedFilter

ALL_OF_IT = FeedFilter()


def frame(
    position: int, session_id: str = "s", run_id: str | None = None, owner: str | None = None, **other: str
) -> Frame:
    event = FeedEvent(position, other.get("kind", "event"), session_id, run_id, owner, other.get("frame", "{}"))
    return encode_frame("e", event)


def buffer(
    frames: Iterable[Frame] = (), *, position: int = 0, most_frames: int = 100, most_bytes: int = 1 << 20
) -> FeedBuffer:
    made = FeedBuffer("e", position, most_frames=most_frames, most_bytes=most_bytes)
    for one in frames:
        made.append([one], one.position)
    return made


def positions(found: tuple[list[Frame], int]) -> tuple[list[int], int]:
    return [one.position for one in found[0]], found[1]


def test_frame_is_one_message_of_stream() -> None:
    """Write id, name, one line of data and a blank line; keep text beyond ASCII."""
    made = frame(7, kind="run_failed", frame='{"error":"ü\u2028"}')
    assert made.encoded == 'id: v1.e.7\nevent: run_failed\ndata: {"error":"ü\u2028"}\n\n'.encode()


def test_line_breaks_between_tokens_of_frame_do_not_break_message() -> None:
    """JSON allows them between tokens only; no encoder of ours writes them."""
    assert frame(1, frame='{\r\n"a": 1\n}').encoded.count(b"\n") == 4


def test_client_gets_frames_behind_its_cursor() -> None:
    """Tell it how far that reaches, also if no frame passed its filter."""
    ours = buffer(map(frame, range(1, 6)))
    assert positions(ours.after(ALL_OF_IT, 3)) == ([4, 5], 5)
    assert positions(ours.after(ALL_OF_IT, 5)) == ([], 5)
    assert positions(ours.after(FeedFilter(session_id="other"), 0)) == ([], 5)


def test_client_ahead_of_the_buffer_keeps_its_position() -> None:
    """Another instance has read more already."""
    assert positions(buffer(map(frame, range(1, 4))).after(ALL_OF_IT, 9)) == ([], 9)


def test_deleted_positions_are_skipped() -> None:
    """A page may cover more positions than it holds events."""
    ours = buffer([frame(2)])
    ours.append([frame(9)], 12)
    assert positions(ours.after(ALL_OF_IT, 0)) == ([2, 9], 12)
    assert ours.high == 12


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (FeedFilter(session_id="a"), [1, 3, 5]),
        (FeedFilter(run_id="r"), [3, 4]),
        (FeedFilter(run_id="r", session_id="a"), [3]),
        (FeedFilter(owner="o"), [2, 3]),
        (FeedFilter(owner="o", session_id="a"), [3]),
        (FeedFilter(kinds=frozenset({"run_failed"})), [5]),
        (FeedFilter(kinds=frozenset()), []),
    ],
)
def test_filters_combine_with_and(which: FeedFilter, expected: list[int]) -> None:
    ours = buffer(
        [
            frame(1, "a"),
            frame(2, "b", owner="o"),
            frame(3, "a", run_id="r", owner="o"),
            frame(4, "b", run_id="r"),
            frame(5, "a", kind="run_failed"),
        ]
    )
    assert positions(ours.after(which, 0)) == (expected, 5)


def test_client_is_given_about_one_chunk_at_time() -> None:
    """Give a larger frame alone; move the cursor behind the last frame given."""
    large = '"' + "x" * CHUNK_BYTES + '"'
    ours = buffer([frame(1), frame(2, frame=large), frame(3), frame(4)])
    assert positions(ours.after(ALL_OF_IT, 0)) == ([1, 2], 2)
    assert positions(ours.after(ALL_OF_IT, 2)) == ([3, 4], 4)


def test_oldest_frames_are_evicted() -> None:
    """`low` is the position behind which nothing is missing."""
    ours = buffer(map(frame, range(1, 11)), most_frames=4)
    assert (ours.low, ours.high) == (6, 10)
    assert positions(ours.after(ALL_OF_IT, 6)) == ([7, 8, 9, 10], 10)


def test_frame_larger_than_the_buffer_is_kept_alone() -> None:
    """Spare clients that are up to date a query each."""
    large = '"' + "x" * 5000 + '"'
    ours = buffer([frame(1), frame(2), frame(3, frame=large)], most_bytes=4000)
    assert (ours.low, ours.high) == (2, 3)
    assert positions(ours.after(ALL_OF_IT, 2)) == ([3], 3)
    ours.append([frame(4)], 4)
    assert ours.low == 3


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, "r1", "r2"]), st.integers(1, 3)), max_size=60),
    st.sampled_from([None, "a", "b"]),
    st.sampled_from([None, "r1"]),
    st.integers(0, 120),
    st.integers(1, 20),
)
def test_client_within_the_buffer_misses_nothing_after_eviction(
    history: list[tuple[str, str | None, int]], session_id: str | None, run_id: str | None, cursor: int, most: int
) -> None:
    """Compare with the whole history, for any filter and any cursor that the buffer still covers."""
    ours = buffer(most_frames=most)
    told: list[Frame] = []
    position = 0
    for session, run, step in history:
        position += step
        told.append(frame(position, session, run))
        ours.append([told[-1]], position)
    which = FeedFilter(session_id=session_id, run_id=run_id)
    if cursor >= ours.low:
        expected = [one.position for one in told if one.position > cursor and one.passes(which)]
        assert positions(ours.after(which, cursor)) == (expected, max(cursor, ours.high))
