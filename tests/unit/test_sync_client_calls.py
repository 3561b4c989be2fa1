"""Compare the synchronous client with the asynchronous one, which it runs."""

import inspect
from collections.abc import Callable
from typing import Any

import coordinator_client
from coordinator_client.client import CoordinatorClient
from coordinator_client.sync_client import SyncCoordinatorClient


def calls(client: type) -> dict[str, Callable[..., Any]]:
    return {name: value for name, value in inspect.getmembers(client, callable) if not name.startswith("_")}


def properties(client: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(client, lambda value: isinstance(value, property))}


def test_every_call_has_its_synchronous_twin() -> None:
    """Compare names, parameters, defaults and documentation."""
    asynchronous = calls(CoordinatorClient)
    synchronous = calls(SyncCoordinatorClient)
    del asynchronous["aclose"], synchronous["close"]
    assert asynchronous.keys() == synchronous.keys()
    for name, method in asynchronous.items():
        assert inspect.signature(method) == inspect.signature(synchronous[name]), name
        assert synchronous[name].__doc__ == method.__doc__
        assert not inspect.iscoroutinefunction(synchronous[name])
    assert properties(CoordinatorClient) == properties(SyncCoordinatorClient)
    assert inspect.signature(CoordinatorClient) == inspect.signature(SyncCoordinatorClient)


def test_streams_are_generators() -> None:
    """Read a stream with `for`; every other call returns its answer."""
    streams = {name for name, method in calls(CoordinatorClient).items() if not inspect.iscoroutinefunction(method)}
    assert streams == {"feed", "follow"}
    for name in streams:
        assert inspect.isgeneratorfunction(getattr(SyncCoordinatorClient, name))


def test_names_of_package_are_those_of_its_modules() -> None:
    for name in coordinator_client.__all__:
        assert getattr(coordinator_client, name).__name__ == name
    assert sorted(coordinator_client._MODULE_OF) == coordinator_client.__all__
    assert not hasattr(coordinator_client, "Client")
