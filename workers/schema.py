import random
from collections.abc import Callable
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from models.schema.revisions import schema_fault
from runtime.logs import log
from runtime.postgres import autocommit, is_unavailable

logger = log(__name__)

LOOK_SECONDS: Final = 1.0


def wait_for_schema(engine: Engine, wait_for_signal: Callable[[float | None], int | None]) -> bool:
    """Return True once the schema is there, False when told to stop meanwhile; each reason to wait is logged once.

    On an older schema every duty would fail or take effect only in part.
    """
    logged = ""
    while (fault := _fault(engine)) is not None:
        if fault != logged:
            logger.warning("worker waits", reason=fault)
            logged = fault
        if wait_for_signal(LOOK_SECONDS * random.uniform(0.8, 1.0)) is not None:
            return False
    return True


def _fault(engine: Engine) -> str | None:
    try:
        with autocommit(engine) as connection:
            return schema_fault(connection)
    except SQLAlchemyError as error:
        if not is_unavailable(error):
            raise
        return "Postgres does not answer"
