"""Write a database's schema as Postgres does, to compare two of them line by line."""

from sqlalchemy import Connection, text

_COLUMNS = """
    SELECT 'column ' || c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
        || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END
        || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
    FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attnum > 0 AND NOT a.attisdropped
"""
# Newer servers list NOT NULL as a constraint; the column's line holds it already.
_CONSTRAINTS = """
    SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
"""
_INDEXES = "SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'"
_TABLES = """
    SELECT 'table ' || relname || ' ' || relpersistence::text || ' ' || coalesce(reloptions::text, '')
    FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""
_SEQUENCES = """
    SELECT 'sequence ' || relname FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace
"""
_FUNCTIONS = """
    SELECT 'function ' || pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
"""
_SHAPES = [_TABLES, _COLUMNS, _CONSTRAINTS, _INDEXES, _SEQUENCES]
ALEMBICS = "alembic_version"


def shape(conn: Connection, *, functions: bool = False) -> set[str]:
    """Return tables, columns, constraints, indexes and sequences, a line each, without Alembic's own."""
    lines: set[str] = set()
    for query in [*_SHAPES, _FUNCTIONS] if functions else _SHAPES:
        lines.update(conn.execute(text(query.replace("::", "\\:\\:"))).scalars())
    return {line for line in lines if ALEMBICS not in line}
