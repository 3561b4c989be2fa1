"""Typed client of the coordinator's HTTP API. Needs httpx and httpx-sse, and nothing else of this project.

The names below may be imported from here; a module is loaded with the first name that it holds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coordinator_client.client import CoordinatorClient
    from coordinator_client.errors import CallFailed, Refused, Unreachable
    from coordinator_client.feed import FeedItem
    from coordinator_client.following import HistoryLost
    from coordinator_client.messages import lines_of, text_of
    from coordinator_client.outcomes import CompletedRun, RunFailed, RunNotCompleted, RunStopped, WaitTimeout
    from coordinator_client.requests import RunRequest
    from coordinator_client.runner_loop.registration import RegistrationRefused
    from coordinator_client.sync_client import SyncCoordinatorClient
    from coordinator_client.tasks import RunCancelled, TaskRun, TaskRunner, task_request

__all__ = [
    "CallFailed",
    "CompletedRun",
    "CoordinatorClient",
    "FeedItem",
    "HistoryLost",
    "Refused",
    "RegistrationRefused",
    "RunCancelled",
    "RunFailed",
    "RunNotCompleted",
    "RunRequest",
    "RunStopped",
    "SyncCoordinatorClient",
    "TaskRun",
    "TaskRunner",
    "Unreachable",
    "WaitTimeout",
    "lines_of",
    "task_request",
    "text_of",
]

_MODULES = {
    "client": ("CoordinatorClient",),
    "errors": ("CallFailed", "Refused", "Unreachable"),
    "feed": ("FeedItem",),
    "following": ("HistoryLost",),
    "messages": ("lines_of", "text_of"),
    "outcomes": ("CompletedRun", "RunFailed", "RunNotCompleted", "RunStopped", "WaitTimeout"),
    "requests": ("RunRequest",),
    "runner_loop.registration": ("RegistrationRefused",),
    "sync_client": ("SyncCoordinatorClient",),
    "tasks": ("RunCancelled", "TaskRun", "TaskRunner", "task_request"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
