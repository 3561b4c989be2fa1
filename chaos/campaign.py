import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import text

from chaos.cluster import ChaosCluster, running_cluster
from chaos.faults import Faults
from chaos.load import Load
from chaos.requests import judge_requests
from chaos.resources import judge_usage, usage
from chaos.schedule import schedule
from chaos.schedules import begin_schedule, end_schedule
from chaos.shipped import Shipped
from chaos.verdict import Verdict, judge
from chaos.watchers import Watchers, watching
from testkit.servers import new_directory

_WAITING = text("SELECT DISTINCT parent_session_id FROM child_results WHERE delivered_in IS NULL")


@dataclass(frozen=True)
class Campaign:
    """Parameters of one campaign. ``rate`` is submissions a second, ``gap`` seconds between faults, ``settle`` the
    seconds that each step of becoming quiet may take.
    """

    seed: int
    seconds: float
    rate: float = 20.0
    gap: float = 6.0
    warm_up: float = 8.0
    settle: float = 120.0

    @property
    def fast_paths(self) -> bool:
        return self.seed % 2 == 1


@dataclass
class Result:
    campaign: Campaign
    verdicts: list[Verdict] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)

    @property
    def held(self) -> bool:
        return bool(self.verdicts) and all(verdict.held for verdict in self.verdicts)

    def write(self, path: Path) -> None:
        verdicts = [{**asdict(verdict), "held": verdict.held} for verdict in self.verdicts]
        kept = {
            "campaign": asdict(self.campaign),
            "held": self.held,
            "verdicts": verdicts,
            "faults": self.faults,
            "counts": self.counts,
        }
        path.write_text(json.dumps(kept, indent=2) + "\n")


def run(campaign: Campaign, directory: Path, say: Callable[[str], None]) -> Result:
    result = Result(campaign)
    with ExitStack() as held:
        cluster = held.enter_context(running_cluster(directory, fast_paths=campaign.fast_paths))
        watchers = held.enter_context(watching(cluster, campaign.seed))
        load = held.enter_context(Load(cluster, directory, campaign.seed, campaign.rate))
        shipped = held.enter_context(
            Shipped(cluster.balancer, new_directory(directory, "shipped"), load.ledger, campaign.seed)
        )
        begin_schedule(cluster)
        time.sleep(campaign.warm_up)
        before = usage(cluster)
        say(f"the cluster serves: {before}")
        faults, began = Faults(cluster, load, say, shipped, load.ledger), time.monotonic()
        faults.run(schedule(campaign.seed, campaign.seconds, gap=campaign.gap))
        say("no more faults: waiting until the cluster is quiet")
        shipped.finish()
        settled = _settle(campaign, cluster, load, watchers, say)
        result.verdicts = [
            settled,
            *judge(cluster.engine, load.ledger),
            shipped.judge(cluster.engine),
            Verdict("One history for every client", _seen(watchers), watchers.differences()),
            judge_requests(load.failures(), faults.done, load.ledger, began),
            judge_usage(before, usage(cluster)),
            Verdict("Every fault was made and undone", f"{len(faults.done)} faults", faults.faults_of_faults()),
        ]
        result.faults = [done.to_json() for done in faults.done]
        result.counts = _counts(load)
    return result


def _settle(
    campaign: Campaign, cluster: ChaosCluster, load: Load, watchers: Watchers, say: Callable[[str], None]
) -> Verdict:
    findings: list[str] = []
    begun = time.monotonic()

    def step(what: str, wait: Callable[[float], object]) -> None:
        fault = ""
        try:
            wait(campaign.settle)
        except AssertionError as error:
            fault = f"{what}: {error}"
            findings.append(fault)
        say(f"{time.monotonic() - begun:6.1f} s  {fault or what}")

    step("every process is well", cluster.until_well)
    step("the schedule has been paused", lambda within: end_schedule(cluster, within))
    step("clients have their answers", load.finish_submitting)
    step("all runs have ended", load.until_all_ended)
    # A lost report of a runner that reports only once leaves its run running (docs/guarantees.md, What may be lost).
    if stopped := load.stop_unheard():
        step(f"{stopped} whose only report was lost have been stopped", load.until_none_left)
    for _ in range(5):
        # Parents that failed or were stopped get no callback before a client resumes them.
        parents = _waiting(cluster)
        if not parents:
            break
        for session_id in parents:
            load.resume(session_id)
        step(f"{len(parents)} parents have been resumed", load.until_all_ended)
    step("every client has come to the end of the history", watchers.until_at_the_end)
    checked = f"quiet after {time.monotonic() - begun:.0f} s; {stopped} runs stopped whose only report was lost"
    return Verdict("The service recovers by itself", checked, findings)


def _waiting(cluster: ChaosCluster) -> list[str]:
    with cluster.engine.connect() as connection:
        return list(connection.execute(_WAITING).scalars())


def _seen(watchers: Watchers) -> str:
    return ", ".join(
        f"{watcher.name}: {len(watcher.client.positions)} events on {watcher.client.connections} connections"
        for watcher in watchers.all
    )


def _counts(load: Load) -> dict[str, Any]:
    answers = {f"{kind} {code}": number for (kind, code), number in sorted(load.ledger.answers.items())}
    failures: dict[str, int] = {}
    for failure in load.failures():
        name = f"{failure.kind} {failure.code or failure.text.split('(')[0]}"
        failures[name] = failures.get(name, 0) + 1
    return {"answers": answers, "failures": failures, "refused": dict(load.ledger.refused)}
