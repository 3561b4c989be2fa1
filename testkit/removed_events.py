"""Keep events that are removed from the history, so that every position of the feed is known."""

from sqlalchemy import Engine, text

from testkit.feed_follower import ledger

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
    return ledger(engine, after, where, table="removed_events")
