import logging
from typing import Any


class EventLog:
    """Logger of constant events whose values are fields: `log.info("claimed", run_id=...)`.

    Records have the text `claimed run_id=...`, and both parts as the attributes `event_name` and `event_fields`, for
    formatters that write fields.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def info(self, event: str, **fields: Any) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, *, exc_info: BaseException | None = None, **fields: Any) -> None:
        self._write(logging.ERROR, event, fields, exc_info)

    def _write(self, level: int, event: str, fields: dict[str, Any], exc_info: BaseException | None = None) -> None:
        if self._logger.isEnabledFor(level):
            text = " ".join([event, *(f"{name}={value}" for name, value in fields.items())])
            extra = {"event_name": event, "event_fields": fields}
            self._logger.log(level, "%s", text, exc_info=exc_info, extra=extra)


log = EventLog("coordinator_client.runner")
