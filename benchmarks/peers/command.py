import argparse
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

import orjson

from benchmarks import machine
from benchmarks.cluster import ClusterFailed, scratch_servers
from benchmarks.peers.environments import Environment, NotInstalled, installed, versions
from benchmarks.peers.roster import OUR_GUARANTEES, OUR_SETUP, OURS, PEERS, Peer
from benchmarks.peers.table import Compared, table
from benchmarks.peers.visit import Extent, NotStarted, Visit, visit, visit_ours
from benchmarks.stage import LoadFailed, Stage

FULL: Final = Extent(10, 150)
QUICK: Final = Extent(3, 30)


def main(arguments: Sequence[str]) -> int:
    asked = _arguments(arguments)
    peers = [peer for peer in PEERS if not asked.peers or peer.name in asked.peers]
    if asked.list:
        print("\n".join(f"{peer.name:<14} {versions(peer)}\n{'':<14} {peer.setup}" for peer in peers))
        return 0
    # Exit as Ctrl-C does, so that no process is left running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    compared = {
        OURS: Compared(version("coordinator"), OUR_SETUP, OUR_GUARANTEES),
        **{peer.name: Compared(versions(peer), peer.setup, peer.guarantees) for peer in peers},
    }
    environments = _environments(peers, compared)
    extent = QUICK if asked.quick else FULL
    with scratch_servers() as (servers, directory):
        facts = machine.facts(servers)
        products: dict[str, Callable[[], Visit]] = {
            OURS: lambda: visit_ours(Stage(servers, directory, asked.quick, 1), extent),
            **{
                peer.name: partial(visit, peer, environments[peer.name], servers, directory, extent)
                for peer in peers
                if peer.name in environments
            },
        }
        for number in range(1 if asked.quick else asked.repeat):
            for name, measure in products.items():
                _tell(f"{name}, round {number + 1}")
                _note(compared[name], measure)
    if asked.json:
        _write(asked.json, facts, compared, quick=asked.quick)
    print("\n".join(f"{name:<10} {value}" for name, value in facts.items()), end="\n\n")
    print(table(compared))
    return 1 if any(product.failures for product in compared.values()) else 0


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench peers",
        description="Measure other products beside ours, each installed from the package registries into its own"
        " environment.",
    )
    parser.add_argument("peers", nargs="*", metavar="PEER", help="peer to measure beside ours (default: all)")
    parser.add_argument("--list", action="store_true", help="print the peers, their versions and set-ups, and end")
    parser.add_argument("--quick", action="store_true", help="measure shorter, once each, to check that it works")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="rounds, each with all products (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    asked = parser.parse_args(arguments)
    unknown = set(asked.peers) - {peer.name for peer in PEERS}
    if unknown:
        parser.error(f"no such peer: {', '.join(sorted(unknown))} (--list names them)")
    if asked.repeat < 1:
        parser.error("--repeat must be at least 1")
    return asked


def _environments(peers: Sequence[Peer], compared: Mapping[str, Compared]) -> dict[str, Environment]:
    found = {}
    for peer in peers:
        _tell(f"{peer.name}, installation")
        try:
            found[peer.name] = installed(peer)
        except NotInstalled as failed:
            compared[peer.name].failures.append(f"not installed: {failed}")
            _tell(f"{peer.name}, not installed: {failed}")
    return found


def _note(product: Compared, measure: Callable[[], Visit]) -> None:
    try:
        product.visits.append(asdict(measure()))
    except (NotStarted, ClusterFailed) as failed:
        product.failures.append(f"not started: {failed}")
    except LoadFailed as failed:
        product.failures.append(str(failed))
    else:
        return
    _tell(product.failures[-1])


def _write(path: Path, facts: Mapping[str, str], compared: Mapping[str, Compared], *, quick: bool) -> None:
    products = {name: asdict(product) for name, product in compared.items()}
    content = {"machine": facts, "quick": quick, "products": products}
    path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))


def _tell(text: str) -> None:
    print(f"-- {text}", file=sys.stderr, flush=True)
