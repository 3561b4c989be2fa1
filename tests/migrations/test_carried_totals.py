"""Check that counts made before a migration are carried into the tables that replace theirs."""

from sqlalchemy import create_engine, text

from models.schema.migrate import downgrade, upgrade

BEFORE = "0028"
COUNTED = """
INSERT INTO run_stats (step, measure, period, owner, profile_id, agent, bucket, number)
SELECT step, measure, TIMESTAMPTZ 'epoch', owner, profile, agent, 0, 2
FROM unnest(ARRAY[60, 3600]) step, unnest(ARRAY['submitted', 'failed']) measure, unnest(ARRAY['', 'ann', 'bob']) owner,
    generate_series(1, 2) profile, unnest(ARRAY['a', 'b', 'c', 'd']) agent
"""
# Rows of each grouping and the number of each: 48 runs of 3 owners, 2 profiles and 4 agents.
EXPECTED = {
    "all": (4, 48),
    "owner": (12, 16),
    "profile": (8, 24),
    "owner and profile": (24, 8),
    "agent": (16, 12),
    "owner and agent": (48, 4),
}


def test_counts_and_their_position_are_carried_over(empty_database_url: str) -> None:
    url = empty_database_url.replace("postgresql://", "postgresql+psycopg://", 1)
    engine = create_engine(url)
    upgrade(url)
    downgrade(url, BEFORE)
    with engine.begin() as connection:
        connection.execute(text(COUNTED))
        connection.execute(text("UPDATE run_stats_head SET position = 17, as_of = TIMESTAMPTZ 'epoch'"))

    upgrade(url)

    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT grouped_by, count(*), min(number), max(number) FROM run_totals GROUP BY 1")
        ).all()
        head = connection.execute(text("SELECT position, extract(epoch FROM as_of) FROM run_totals_head")).one()
    assert {row[0]: (row[1], row[2]) for row in rows} == EXPECTED
    assert all(row[2] == row[3] for row in rows)
    assert tuple(head) == (17, 0)
    engine.dispose()
