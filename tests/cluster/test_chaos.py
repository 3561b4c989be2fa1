"""Run the chaos suite briefly: a whole cluster under load and a fixed schedule of faults keeps every promise."""

from pathlib import Path

import pytest

from chaos.campaign import Campaign, run
from chaos.schedule import Kind, schedule
from testkit.servers import new_directory

# Half a minute in which a web process, a runner, Postgres and Redis die, another runner dies for good, one drains, a
# proxy answers the shipped runner in our place and its machine sleeps, connections are cut or silent, a clock is wrong.
# `scripts/chaos --seed …` does the same; longer runs do all there is.
SHORT = Campaign(seed=179, seconds=26, gap=2.5, rate=10, warm_up=2, settle=60)


@pytest.mark.timeout(240)
def test_cluster_under_load_and_faults_keeps_every_promise(scratch: Path) -> None:
    """Compare the ledger with the database once it is quiet."""
    said: list[str] = []
    result = run(SHORT, new_directory(scratch, "chaos"), said.append)
    verdict = "\n".join(map(str, result.verdicts))
    assert result.held, "\n".join(said) + "\n" + verdict
    assert len(result.faults) == len(schedule(SHORT.seed, SHORT.seconds, gap=SHORT.gap))


def test_short_run_has_no_deploy() -> None:
    """A deploy takes longer than all the rest; tests/cluster/test_rolling_deploy.py covers it."""
    faults = schedule(SHORT.seed, SHORT.seconds, gap=SHORT.gap)
    assert len(faults) >= 5
    assert Kind.DEPLOY not in {fault.kind for fault in faults}
    assert {Kind.DIE, Kind.ANSWER, Kind.SLEEP, Kind.DRAIN} <= {fault.kind for fault in faults}
