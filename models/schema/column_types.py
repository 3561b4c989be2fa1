"""Column types and parameters that SQLAlchemy does not have."""

from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Text, any_, bindparam, cast
from sqlalchemy.types import UserDefinedType


# Use arrays, not joined sets: a plan made while the tables were empty reads them by key when they are full, too.
def any_of(name: str) -> Any:
    """Return the parameter of this name, an array of texts, to be compared with a column."""
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
    """Target of the cast in ``JsonText``; has no expressions of its own, so that the cast ends."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "JSON"
