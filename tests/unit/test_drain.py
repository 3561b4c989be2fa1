"""Check that parked requests end in the second half of the drain, spread over it."""

import asyncio

from app.lifecycle.drain import Drain
from app.lifecycle.health import Health


def test_nothing_ends_before_the_drain_starts() -> None:
    drain = Drain(10)
    assert not drain.draining
    assert drain.give_up_in() == float("inf")


def test_give_up_moments_lie_in_second_half() -> None:
    """End parked requests neither all at once nor after the listener has closed."""
    drain = Drain(100)
    drain.start()
    moments = [drain.give_up_in() for _ in range(200)]
    assert min(moments) > 49
    assert max(moments) < 96
    assert max(moments) - min(moments) > 20


def test_starting_twice_keeps_first_start() -> None:
    """A second signal does not lengthen the drain."""
    drain = Drain(100)
    drain.start()
    drain.start(5000)
    assert drain.seconds == 100


def test_listeners_are_called_even_if_drain_began_before_the_loop() -> None:
    async def scenario() -> list[str]:
        heard: list[str] = []
        drain = Drain(0)
        drain.on_start(lambda: heard.append("began"))
        drain.start()
        drain.attach(asyncio.get_running_loop())
        await asyncio.wait_for(drain.began.wait(), 30)
        await asyncio.wait_for(drain.over.wait(), 30)
        return heard

    assert asyncio.run(scenario()) == ["began"]


def test_draining_process_is_not_ready_unless_a_successor_shares_its_address() -> None:
    """A balancer that asks on a kept connection would count the address, and with it the successor, as gone."""
    for handed_over, code in ((False, 503), (True, 200)):
        drain = Drain(10)
        health = Health(drain)
        health.start()
        drain.start(handed_over=handed_over)
        assert health.report()[0] == code
