"""Give errors that differ in numbers, ids and paths one fingerprint, and others different ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.core.fingerprints import fingerprint, normalised

ALIKE = [
    ("Timed out after 30 s", "Timed out after 4.5 s"),
    ("no run run_0197f7a0c3d17c1e8f2a4b6c8d0e1f2a", "no run run_0197f7a0c3d17c1e8f2a4b6c8d0e1fff"),
    ("at 0x7f3a", "at 0xdeadbeef"),
    ("cannot open /srv/a/b.txt", "cannot open /home/x y".replace(" y", "/c.json")),
    ("550e8400-e29b-41d4-a716-446655440000 gone", "123e4567-e89b-12d3-a456-426614174000 gone"),
    ("exit code 1\nline 7\nKeyError: 'a'", "exit code 1\nline 8\nmore\n\nKeyError: 'a'\n"),
    ("GET https://a.example/1?b=2 failed", "GET http://c.example failed"),
]
DIFFERENT = [
    ("exit code 1", "exit code 2"),
    ("exit code 1\nKeyError: 'a'", "exit code 1\nValueError: 'a'"),
    ("No runner offers tag gpu", "No runner offers tag cpu"),
    (None, "x"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_errors_that_differ_in_values_are_one_group(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_errors_that_differ_in_words_are_two_groups(one: str | None, other: str) -> None:
    assert fingerprint(one) != fingerprint(other)


@given(st.text(max_size=200), st.integers(0, 10**12), st.integers(0, 10**12))
def test_number_within_any_text_does_not_matter(text: str, one: int, other: int) -> None:
    assert fingerprint(f"after {one} s: {text}") == fingerprint(f"after {other} s: {text}")
