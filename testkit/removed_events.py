"""Keep events that are removed from the history, so that every position of the feed is known."""

from sqlalchemy import Engine, text

from testkit.feed_follower import sent_data

# Numbered events of deleted sessions are removed, whether readers have seen them or not.
_KEEP_REMOVED = """
    CREATE TABLE removed_events (LIKE events);
    CREATE FUNCTION keep_removed() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO removed_events SELECT OLD.*; RETURN NULL; END';
    CREATE TRIGGER keep_removed AFTER DELETE ON events FOR EACH ROW EXECUTE FUNCTION keep_removed();
"""


def keep_removed(engine: Engine) -> None:
    """Record from now on what is removed from the history, so that every position is known."""
    with engine.begin() as connection:
        connection.execute(text(_KEEP_REMOVED))


def removed(engine: Engine, after: int = 0, where: str = "true") -> list[tuple[int, str, str]]:
    """Return the removed events in the shape of ``ledger``."""
    statement = (
        "SELECT feed_pos, kind, run_id, CAST(frame AS text) AS frame FROM removed_events "
        f"WHERE feed_pos > :after AND {where} ORDER BY feed_pos"
    )
    with engine.connect() as connection:
        rows = connection.execute(text(statement), {"after": after}).all()
    return [(row.feed_pos, row.kind, sent_data(row)) for row in rows]
