"""The real daemon around an engine that does as it is told. Run by conftest.start_daemon, never imported.

argv: POLICY. Commands, one JSON object a line, on stdin: {"do": "show", ...State fields as below}, {"do":
"raise"}, {"do": "hang", "seconds": S}, {"do": "refuse"} (the next policy), {"do": "log", "level": L, "text":
T}, {"do": "exit"} (SystemExit in the engine). Events go to stdout, one JSON object each.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tierd.config import files, load
from tierd.core import past
from tierd.core.address_heat import KnownRates
from tierd.core.model import Node, ProcessId, Tier, TierKind, Topology
from tierd.core.policy import Policy
from tierd.core.state import ClassState, Counters, EngineState, MissingFeature, PlanLine, State
from tierd.errors import UnsupportedError
from tierd.kernel.paths import Root
from tierd.kernel.residence import mapped_ranges
from tierd.service import daemon as daemon_module
from tierd.service import presence, process_heat
from tierd.service.authority import Authority
from tierd.service.daemon import Daemon
from tierd.service.journal import Reporter, capture_logging, entry
from tierd.service.notify import Notifier

GIB = 1 << 30
LATE = (MissingFeature("late", "it is lost", "get it"),)


def topology(slow: bool = True) -> Topology:
    dram = Tier(
        "memory_tier4",
        TierKind.DRAM,
        (Node(0, 2 * GIB, GIB // 2, 1 << 20, True, False, 80),),
    )
    pmem = Tier("memory_tier56", TierKind.SLOW, (Node(1, 4 * GIB, 3 * GIB, 1 << 20, False, True, 300),))
    return Topology((dram, pmem) if slow else (dram,))


class Told:
    """An engine that does as it is told."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.state = State()
        self.orders: list[dict[str, Any]] = []
        self.refuse = False
        self.first = True

    def step(self) -> float:
        if self.first:
            self.first = False
            self.state = State(
                engine=EngineState.CONVERGING,
                topology=topology("--untiered" not in sys.argv),
                counters=Counters(rounds=1, promoted_pages=105472, move_seconds=0.5),
                source="hint-faults",
                source_reason="page-exact, and the kernel has it",
                missing=(
                    MissingFeature("DAMON", "large regions are found later", "boot with CONFIG_DAMON"),
                ),
                plan=(
                    PlanLine("promote", "/system.slice/db.service", 1024, 1, 0, "hot: 12 accesses a second"),
                ),
                classes=(ClassState("gold", "guaranteed", 5, 1, GIB, 0, GIB, GIB, 9, 0),),
                processes=3,
                cgroups=2,
                dram_bytes=GIB,
                slow_bytes=2 * GIB,
                bytes_per_second=12e6,
                monotonic=time.monotonic(),
            )
        while self.orders:
            self.obey(self.orders.pop(0))
        return 0.02

    def obey(self, order: dict[str, Any]) -> None:
        match order.pop("do"):
            case "show":
                if "engine" in order:
                    order["engine"] = EngineState(order["engine"])
                if "broken" in order:
                    (gold,) = self.state.classes
                    order["classes"] = (replace(gold, broken=order.pop("broken")),)
                if "slow" in order:
                    order["topology"] = topology(order.pop("slow"))
                if "promoted" in order:
                    counters = replace(self.state.counters, promoted_pages=order.pop("promoted"))
                    order["counters"] = counters
                self.state = replace(self.state, **{"monotonic": time.monotonic(), **order})
            case "log":
                getattr(logging.getLogger("tierd.service.engine"), order["level"])(order["text"])
            case "raise":
                raise KeyError("what\nis this")
            case "exit":
                raise SystemExit(0)
            case "hang":
                print(json.dumps({"hangs": True}), flush=True)
                time.sleep(order["seconds"])
            case "refuse":
                self.refuse = True

    def adopt(self, policy: Policy) -> None:
        if self.refuse:
            self.refuse = False
            raise UnsupportedError("this machine cannot do that")
        self.policy = policy

    def pause(self, until: float, words: str) -> None:
        left = until - time.monotonic() if until else 0.0
        print(json.dumps({"paused": round(left), "words": words}), flush=True)
        paused = replace(self.state, engine=EngineState.PAUSED, reason=f"an operator has paused it {words}")
        self.state = paused if until else replace(self.state, engine=EngineState.CONVERGING, reason="")

    def heat(self, process: ProcessId) -> KnownRates | None:
        if process.pid == 1:
            return None
        (start, _), *_ = mapped_ranges(Root(), process.pid)
        return KnownRates(np.array([start]), np.array([5.0]), np.array([True]))

    def close(self) -> None:
        print(json.dumps({"closed": True}), flush=True)


def keep() -> str:
    print(json.dumps({"kept": True}), flush=True)
    return "no room" if "--no-room" in sys.argv else ""


def obey_stdin(engine: Told) -> None:
    for line in sys.stdin:
        engine.orders.append(json.loads(line))


def main() -> int:
    path = Path(sys.argv[1])
    in_force = "--in-force" in sys.argv  # the files that lie about there, and not that one alone
    # in the program alone, which tests import as well
    past.STEP = 1.0  # they do not wait for ten seconds
    process_heat.HEAT_SECONDS = 2.0
    # whoever runs the tests may be small, or in no cgroup
    process_heat.why_not_placed = lambda _, process: "it is tierd" if process.id.pid == os.getpid() else ""
    files.DIRECTORIES = (path.parent, path.parent / "run", path.parent / "lib")

    def read() -> Policy:
        return load(None) if in_force else load(path, trusted=False)

    policy = read()
    engine = Told(policy)
    daemon_module.REPORT_SECONDS = 1
    if "--trust-nobody" in sys.argv:  # not even root, who runs the tests
        presence.Authority = lambda: Authority(4242)
    daemon = Daemon(
        policy,
        engine,
        load=read,
        reporter=Reporter(lambda event: print(json.dumps(entry(event)), flush=True)),
        notifier=Notifier(),
        address=os.environ["TIERD_TEST_BUS"],
        restart_when_tiered="--restart-when-tiered" in sys.argv,
        read_notices=lambda policy: (
            (f"region9 is new, {policy.engine.mode}",) if "--new-region" in sys.argv else ()
        ),
        read_missing=lambda: LATE if "--late" in sys.argv else (),
        keep=keep,
    )
    capture_logging(daemon.report)
    threading.Thread(target=obey_stdin, args=(engine,), daemon=True).start()
    return daemon.run()


if __name__ == "__main__":
    sys.exit(main())
