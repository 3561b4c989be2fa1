"""Silence of runners: from when it counts although gaps of ours follow one another."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# A gap of the kind 'runners' is a guess, the others are known: only these are left out of the time that we served. The
# newest 2,000 gaps of at least 15 s are more than any window needs.
SERVED_AGO = """
CREATE FUNCTION served_ago(seconds double precision) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT clock_timestamp() - make_interval(secs => seconds)
        - coalesce(sum(away.length) FILTER (WHERE away.served_since < make_interval(secs => seconds)), interval '0')
    FROM (
        SELECT upper(part) - lower(part) AS length,
            clock_timestamp() - upper(part)
                - coalesce(sum(upper(part) - lower(part)) OVER (
                    ORDER BY part DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), interval '0') AS served_since
        FROM unnest((SELECT range_agg(tstzrange(g.started_at, g.ended_at)) FROM (
            (SELECT started_at, ended_at FROM gaps WHERE kind <> 'runners' ORDER BY ended_at DESC LIMIT 2000)
            UNION ALL
            SELECT last_run, clock_timestamp() FROM duties
            WHERE duty = 'web clock' AND last_run < clock_timestamp() - interval '15 seconds') g)) AS part
    ) away
$$;
"""

# Silence counts anew from the end of the last gap, but twice the window in time that we served is enough.
SILENT_BEFORE = """
CREATE FUNCTION silent_before(seconds double precision) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN counts.since > clock_timestamp() - make_interval(secs => seconds) THEN served_ago(2 * seconds)
        ELSE clock_timestamp() - make_interval(secs => seconds) END
    FROM (SELECT silence_counts_from() AS since) counts
$$;
"""


def upgrade() -> None:
    op.execute(SERVED_AGO)
    op.execute(SILENT_BEFORE)


def downgrade() -> None:
    op.execute("DROP FUNCTION silent_before(double precision)")
    op.execute("DROP FUNCTION served_ago(double precision)")
