"""Draining: what is parked gives up in the second half of the time, spread."""

import asyncio

from app.lifecycle.drain import Drain
from app.lifecycle.health import Health


def test_nothing_gives_up_while_nobody_drains() -> None:
    """A poll may wait for ever as far as the drain is concerned."""
    drain = Drain(10)
    assert not drain.draining
    assert drain.give_up_in() == float("inf")


def test_give_up_moments_lie_in_the_second_half() -> None:
    """Neither all at once nor after the listener has closed."""
    drain = Drain(100)
    drain.start()
    moments = [drain.give_up_in() for _ in range(200)]
    assert min(moments) > 49
    assert max(moments) < 96
    assert max(moments) - min(moments) > 20


def test_starting_twice_keeps_the_first_start() -> None:
    """A second signal does not lengthen the drain."""
    drain = Drain(100)
    drain.start()
    drain.start(5000)
    assert drain.seconds == 100


def test_listeners_hear_it_in_the_loop_also_when_it_began_before() -> None:
    """A signal may come before the loop serves."""

    async def scenario() -> list[str]:
        heard: list[str] = []
        drain = Drain(0)
        drain.on_start(lambda: heard.append("began"))
        drain.start()
        drain.attach(asyncio.get_running_loop())
        await asyncio.wait_for(drain.began.wait(), 5)
        await asyncio.wait_for(drain.over.wait(), 5)
        return heard

    assert asyncio.run(scenario()) == ["began"]


def test_who_drains_is_not_ready_unless_somebody_else_serves_its_address() -> None:
    """A balancer that asks on a connection it kept would take the address for gone, and the successor with it."""
    for handed_over, code in ((False, 503), (True, 200)):
        drain = Drain(10)
        health = Health(drain)
        health.start()
        drain.start(handed_over=handed_over)
        assert health.report()[0] == code
