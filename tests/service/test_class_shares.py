"""What each class has, what it is owed, and what the engine does about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.kernel.fixtures import MIB, Machine, numa_stat
from tierd.core.classes import DEFAULT_CLASS, ClassRule, DramBound, DramShare, Place, ServiceClass
from tierd.core.heat import HotPages
from tierd.core.holdings import Spare
from tierd.core.model import PAGE_SIZE, ProcessId, Topology
from tierd.core.planner import ColdStock, Observation, Plan
from tierd.core.policy import ProcessSelection
from tierd.core.text import size
from tierd.errors import ConfigError
from tierd.kernel.topology import read_topology
from tierd.service import class_shares
from tierd.service.class_shares import LITTLE, PATIENCE, USERS_SECONDS, ClassShares
from tierd.service.moving import Moved
from tierd.service.placed import PlacedProcesses

GOLD = ServiceClass("gold", (ClassRule(unit="gold.slice"),), DramShare(guaranteed=True))
SILVER = ServiceClass(
    "silver", (ClassRule(cgroup="/silver*"),), DramShare(minimum=DramBound(per_cent=30)), bandwidth=8 * MIB
)
BRONZE = ServiceClass("bronze", (ClassRule(command="bronze"),), DramShare(maximum=DramBound(per_cent=10)))
CLASSES = (BRONZE, SILVER, GOLD, DEFAULT_CLASS)
NOTHING = HotPages(np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0), np.empty(0, np.int16))


class Bench:
    """Four processes of four classes: gold 90 of 100 MiB in DRAM, silver 10, bronze 50, the other 70."""

    def __init__(self, path: Path) -> None:
        self.now = 100.0
        self.machine = Machine(path, nodes={0: (1024 * MIB, 400 * MIB), 1: (4096 * MIB, 3000 * MIB)}).write()
        self.hold(1, "/gold.slice/a", 90)
        self.hold(2, "/silver", 10)
        self.hold(3, "/x", 50, command=b"bronze")
        self.hold(4, "/rest", 70)
        self.placed = PlacedProcesses(self.machine.root)
        self.shares = ClassShares(self.machine.root, self.placed, lambda: self.now)
        self.shares.adopt(CLASSES)
        self.look()

    def hold(self, pid: int, cgroup: str, dram: int, *, command: bytes = b"work", total: int = 100) -> None:
        self.machine.add_process(pid, cgroup, command=command, resident=total * MIB)
        stat = numa_stat({0: dram * MIB, 1: (total - dram) * MIB})
        self.machine.put(self.machine.root.cgroup / cgroup.lstrip("/") / "memory.numa_stat", stat)

    def look(self) -> None:
        self.placed.refresh(ProcessSelection(), MIB)
        self.shares.look(read_topology(self.machine.root), 0)

    def held(self, name: str) -> tuple[int, int, int, int]:
        """MiB of DRAM and slow memory, and what is promised and allowed."""
        found = next(h for h in self.shares._holdings if h.service_class.name == name)
        return tuple(  # type: ignore[return-value]
            pages * PAGE_SIZE // MIB for pages in (found.dram, found.slow, found.least, found.most)
        )

    def slot(self, pid: int) -> int:
        return self.placed.slot_of(ProcessId(pid, 5000))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_reload_is_no_new_burst(bench: Bench) -> None:
    arrived = np.arange(8 * MIB // PAGE_SIZE, dtype=np.uint64)
    bench.shares.account(Moved(arrived={(bench.slot(2), 0): arrived}))
    for reloaded, budget in ((SILVER, 0), (replace(SILVER, bandwidth=4 * MIB), 1024)):
        bench.shares.adopt([reloaded, DEFAULT_CLASS])
        bench.look()
        (silver,) = (h for h in bench.shares._holdings if h.service_class.name == "silver")
        assert silver.budget == budget
        bench.now += 1.0


def test_each_class_has_what_its_cgroups_have(bench: Bench) -> None:
    assert bench.held("gold") == (90, 10, 100, 100)
    assert bench.held("silver") == (10, 90, 30, 100)
    assert bench.held("bronze") == (50, 50, 0, 10)
    assert bench.held("default") == (70, 30, 0, 100)
    assert bench.shares.pending


def test_what_is_promised_is_not_a_page_less(bench: Bench) -> None:
    bench.hold(2, "/silver", 10, total=101)
    bench.look()
    (silver,) = (h for h in bench.shares._holdings if h.service_class.name == "silver")
    assert silver.least * PAGE_SIZE >= 0.30 * 101 * MIB > (silver.least - 1) * PAGE_SIZE


def test_what_there_is_no_dram_for_is_not_owed(bench: Bench) -> None:
    bench.machine.nodes[0] = (180 * MIB, 60 * MIB)
    bench.machine.write()
    bench.look()
    least = bench.held("gold")[2], bench.held("silver")[2]
    assert least == (100, sum(p.kept for p in bench.shares.admission.promises) // MIB - 100)
    assert 0 < least[1] < 30 and bench.shares.admission.alarms()


def test_only_what_is_guaranteed_is_never_asked_for(bench: Bench) -> None:
    assert bench.shares.guaranteed("/gold.slice/a") and bench.shares.guaranteed("/gold.slice/new")
    assert not any(map(bench.shares.guaranteed, ("/silver", "/x", "/rest", "/other")))


def test_a_cgroup_of_several_classes_is_counted_once_to_whom_most_is_promised(bench: Bench) -> None:
    bench.hold(5, "/silver", 10, command=b"bronze")
    bench.look()
    assert bench.held("silver")[:2] == (10, 90) and bench.held("bronze")[:2] == (50, 50)


def test_without_classes_nothing_is_read_and_nothing_changes(bench: Bench) -> None:
    bench.shares.adopt((DEFAULT_CLASS,))
    bench.look()
    assert not bench.shares.active and not bench.shares.pending
    assert not bench.shares.guaranteed("/gold.slice/a") and bench.shares.least(3.0) == 3.0
    bench.shares.adopt(CLASSES)
    assert bench.shares.least(3.0) < 1


def test_a_little_too_much_or_too_little_is_no_reason_for_a_round(bench: Bench) -> None:
    little = LITTLE * PAGE_SIZE // MIB
    bench.hold(1, "/gold.slice/a", 100 - little)
    bench.hold(2, "/silver", 30 - little)
    bench.hold(3, "/x", 10 + little, command=b"bronze")
    bench.look()
    assert not bench.shares.pending


def test_what_stays_off_for_long_is_overdue(bench: Bench) -> None:
    def overdue() -> list[str]:
        return [h.service_class.name for h in bench.shares.sharing.holdings if h.overdue]

    assert overdue() == []
    bench.now += PATIENCE - 0.1
    bench.hold(2, "/silver", 30)
    bench.look()
    assert overdue() == []
    bench.now += 0.1
    bench.hold(2, "/silver", 20)
    bench.look()
    assert overdue() == ["gold", "bronze"], "silver is short anew"
    bench.now += PATIENCE
    bench.hold(1, "/gold.slice/a", 100)
    bench.hold(3, "/x", 10 + LITTLE * PAGE_SIZE // MIB, command=b"bronze")
    bench.look()
    assert overdue() == ["silver"]


def stock(cgroup: str, pages: int) -> ColdStock:
    return ColdStock(cgroup, hash(cgroup), 0, 7, 100.0, pages, 0.01)


def planned(bench: Bench, hot: HotPages, *cold: ColdStock) -> Plan:
    topology = read_topology(bench.machine.root)
    seen = Observation(hot, cold, topology.dram, topology.slow, 1 << 30)
    return bench.shares.plan(seen, Spare.none(), lambda cgroups: 0.01)


def test_the_plan_keeps_to_what_classes_may_have(bench: Bench) -> None:
    plan = planned(bench, NOTHING, stock("/x", 1 << 20), stock("/rest", 1 << 20))
    (given,) = plan.demotions
    assert given.enforced and given.stock.cgroup == "/x" and given.pages == 40 * MIB // PAGE_SIZE
    assert given.reason == "class bronze has more DRAM than max 10%"


def test_a_class_pays_for_what_is_moved_of_it(bench: Bench) -> None:
    silver = bench.slot(2)
    pages = HotPages(
        np.full(9000, silver),
        np.arange(9000, dtype=np.uint64),
        np.full(9000, 5.0),
        np.full(9000, -1, np.int16),
    )
    assert planned(bench, pages).promote == 8 * MIB // PAGE_SIZE
    bench.shares.account(
        Moved(
            demoted=10_511,
            arrived={(silver, 0): pages.page[:1024]},
            asked={"/silver": 512, "/rest": 9999},
            pushed={silver: 100, 77: 5},
        )
    )
    bench.look()
    assert planned(bench, pages).promote == 8 * MIB // PAGE_SIZE - 1024 - 512 - 100
    shown = {found.name: (found.promoted_pages, found.demoted_pages) for found in bench.shares.states}
    assert shown == {"gold": (0, 0), "silver": (1024, 612), "bronze": (0, 0), "default": (0, 9999)}


def test_what_is_shown_says_what_is_missing(bench: Bench) -> None:
    gold, silver, bronze, rest = bench.shares.states
    assert gold.broken == (
        "class gold (guaranteed) lacks 10 MiB of the 100 MiB of DRAM that are promised to it;"
        " they are being brought up"
    )
    assert silver.broken.startswith("class silver (min 30%) lacks 20 MiB of the 30 MiB")
    assert not bronze.broken and not rest.broken and bronze.promise == "max 10%" and not rest.promise
    assert (bronze.processes, bronze.dram_bytes, bronze.most_bytes) == (1, 50 * MIB, 10 * MIB)
    bench.machine.nodes[0] = (180 * MIB, 60 * MIB)
    bench.machine.write()
    bench.look()
    short = next(p.short for p in bench.shares.admission.promises if p.service_class.name == "silver")
    assert f"for {size(short)} there is no DRAM" in bench.shares.states[1].broken


def test_a_policy_that_promises_too_much_is_refused_with_the_sum(bench: Bench) -> None:
    topology = read_topology(bench.machine.root)
    much = ServiceClass("much", (ClassRule(unit="rest"),), DramShare(minimum=DramBound(size=4096 * MIB)))
    with pytest.raises(ConfigError) as caught:
        bench.shares.check((GOLD, much, DEFAULT_CLASS), "p.yaml", topology, 0)
    assert "class gold, guaranteed, all that it has now: 100 MiB" in "\n".join(caught.value.problems)
    assert bench.held("silver")[2] == 30, "the older one goes on"
    bench.shares.check(CLASSES, "p.yaml", topology, 0)
    bench.shares.check((much, DEFAULT_CLASS), "p.yaml", Topology(()), 0)


def test_a_class_that_nobody_has_is_odd_until_somebody_has_it(bench: Bench) -> None:
    def odd() -> dict[str, str]:
        return {found.name: found.odd for found in bench.shares.states if found.odd}

    place = Place(9, 5, "classes[1]")
    late = ServiceClass("late", (ClassRule(unit="late.service"),), DramShare(), place=place)
    bench.shares.adopt((GOLD, late, DEFAULT_CLASS), "p.yaml")
    bench.look()
    words = "class late has no process: none that is placed matches unit: late.service"
    assert odd() == {"late": f"p.yaml:9:5: classes[1]: warning: {words}"}
    bench.hold(5, "/late.service", 10)
    bench.look()
    assert odd() == {}
    (bench.machine.root.cgroup / "late.service/cgroup.procs").write_text("")
    bench.look()
    assert odd() == {}, "it was no mistake"


def test_users_who_come_later_are_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, int] = {}
    monkeypatch.setattr(class_shares, "user_ids", lambda names: {n: known[n] for n in names if n in known})
    by_user = ServiceClass("own", (ClassRule(user="erin"),), DramShare(guaranteed=True))
    bench.shares.adopt((by_user, DEFAULT_CLASS))
    bench.look()
    assert bench.held("own")[0] == 0
    known["erin"] = (bench.machine.root.proc / "4").stat().st_uid
    bench.look()
    assert bench.held("own")[0] == 0, "the name service is not asked in each round"
    bench.now += USERS_SECONDS
    bench.look()
    assert bench.held("own")[0] == 90 + 10 + 50 + 70


def test_a_cgroup_that_goes_meanwhile_counts_as_nothing(bench: Bench) -> None:
    (bench.machine.root.cgroup / "rest/memory.numa_stat").unlink()
    bench.shares.look(read_topology(bench.machine.root), 0)
    assert bench.held("default")[:2] == (0, 0)
