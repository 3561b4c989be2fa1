"""Parts of table definitions: the metadata, and columns that many tables have."""

from typing import Any

from sqlalchemy import Column, DateTime, MetaData, func

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    },
)


def one_of(column: str, values: Any) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


def moment(name: str, *, default: bool = False, nullable: bool = True) -> Column[Any]:
    """Return a column for a moment; with ``default`` it is that of the transaction that inserts the row."""
    return Column(
        name,
        DateTime(timezone=True),
        nullable=nullable and not default,
        server_default=func.now() if default else None,
    )
