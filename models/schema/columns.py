from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from sqlalchemy import ARRAY, Column, ColumnElement, DateTime, MetaData, Table, Text, any_, bindparam, cast, func
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import UserDefinedType

from models.schema.sql import literals

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy does not annotate it
_JSON = {"json", "jsonb"}

# Vacuum early: runs and sessions are updated all the time, and hardly an update is HOT, since it touches an indexed
# column; retention deletes events (docs/operations.md, Bloat).
VACUUMED_EARLY = {"autovacuum_vacuum_scale_factor": "0.05"}

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    },
)


def one_of(column: str, values: Iterable[StrEnum]) -> str:
    return f"{column} IN {literals(values)}"


def moment(name: str, *, default: bool = False, nullable: bool = True) -> Column[Any]:
    return Column(
        name,
        DateTime(timezone=True),
        nullable=nullable and not default,
        server_default=func.now() if default else None,
    )


# Use arrays, not joined sets: a plan made while the tables were empty reads them by key when they are full, too.
def any_of(name: str) -> Any:
    return any_(bindparam(name, type_=ARRAY(Text)))


class JsonText(UserDefinedType[str]):
    """Column of type ``json`` whose values go in and come out as text, untouched.

    ``json`` keeps NUL escapes and lone surrogates that ``jsonb`` refuses, and text spares two conversions per row.
    """

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "JSON"

    def bind_expression(self, bindvalue: Any) -> ColumnElement[Any]:
        return cast(bindvalue, _PlainJson())

    def column_expression(self, column: Any) -> ColumnElement[Any]:
        return cast(column, Text)


class _PlainJson(UserDefinedType[str]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "JSON"


def names_of(alias: str, columns: Iterable[ColumnElement[Any]]) -> str:
    """Return the columns as a list for SQL, JSON as text: ``r.run_id, CAST(r.scope AS text)``."""
    return ", ".join(
        f"CAST({alias}.{column.key} AS text)" if isinstance(column.type, JsonText) else f"{alias}.{column.key}"
        for column in columns
    )


def array_rows(alias: str, table: Table, names: Iterable[str]) -> dict[str, str]:
    """Return the lists of an INSERT of rows that come as one array a column: the parameters have the columns' names.

    ``columns``: the names; ``arrays``: the arguments of ``unnest``, JSON as text; ``values``: the values to insert.
    """
    types = {name: table.c[name].type.compile(_DIALECT).lower() for name in names}
    return {
        "columns": ", ".join(types),
        "arrays": ", ".join(f"CAST(:{name} AS {'text' if it in _JSON else it}[])" for name, it in types.items()),
        "values": ", ".join(
            f"CAST({alias}.{name} AS {it})" if it in _JSON else f"{alias}.{name}" for name, it in types.items()
        ),
    }
