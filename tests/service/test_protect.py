"""Units of guaranteed classes are kept in DRAM through a systemd on a private bus, and let go again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kernel.fixtures import MIB, Machine, numa_stat
from tests.service.conftest import Bus, Program, wait_for
from tierd.core.classes import DEFAULT_CLASS, ClassRule, DramBound, DramShare, ServiceClass
from tierd.core.policy import EngineMode, EnginePolicy, Policy, ProcessMatch, ProcessSelection
from tierd.core.protection import LAST, UnitMemory
from tierd.core.state import ClassState, State
from tierd.errors import DeniedError, MalformedError, TierdError
from tierd.service import protect as program
from tierd.service.one_shot import Exit
from tierd.service.protect import PROTECTED, RELEASED, UNPROTECTED, protect, read_ledger
from tierd.service.protection import ProtectionTrigger
from tierd.service.systemd_units import Units, mask_of, nodes_of

pytestmark = pytest.mark.service

GUARANTEED = DramShare(guaranteed=True)
GOLD = ServiceClass("gold", (ClassRule(unit="gold.slice"),), GUARANTEED)


def policy(*classes: ServiceClass, mode: EngineMode = EngineMode.PLACE) -> Policy:
    return Policy(engine=EnginePolicy(mode=mode), classes=(*classes, DEFAULT_CLASS))


class Bench:
    """A machine with a process of 100 MiB in gold.slice, all of it in DRAM, and a systemd."""

    def __init__(self, path: Path, address: str) -> None:
        self.machine = Machine(path / "machine").write()
        self.machine.add_process(1, "/gold.slice/a.service")
        self.hold("/gold.slice", {0: 100 * MIB, 1: 0})
        self.units = Units(address)
        self.ledger = path / "protected.json"

    def hold(self, cgroup: str, held: dict[int, int]) -> None:
        directory = self.machine.root.cgroup / cgroup.lstrip("/")
        self.machine.put(directory / "memory.numa_stat", numa_stat(held))
        self.machine.put(directory / "memory.current", f"{sum(held.values())}\n")

    def run(self, wanted: Policy | None) -> Exit:
        return protect(self.machine.root, self.units, wanted, self.ledger)

    @property
    def gold(self) -> UnitMemory | None:
        return self.units.read("gold.slice")


@pytest.fixture
def bench(bus: Bus, tmp_path: Path) -> Iterator[Bench]:
    systemd = Program([str(Path(__file__).with_name("fake_systemd.py")), bus.address], {})
    wait_for(lambda: "ready" in systemd.lines, "systemd")
    yield Bench(tmp_path, bus.address)
    systemd.process.kill()
    systemd.process.wait()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    monkeypatch.setattr(program, "say", lambda kind, words, *_: found.append((kind.name, words)))
    return found


@pytest.mark.parametrize("nodes", [(), (0,), (7,), (8,), (0, 2, 63)])
def test_sets_of_nodes_are_as_systemd_has_them(nodes: tuple[int, ...]) -> None:
    assert nodes_of(mask_of(frozenset(nodes))) == frozenset(nodes)
    assert mask_of(frozenset({0, 9})) == b"\x01\x02"


def test_a_guaranteed_unit_is_kept_in_dram_until_the_class_goes(
    bench: Bench, said: list[tuple[str, str]]
) -> None:
    assert bench.run(policy(GOLD)) is Exit.OK
    assert bench.gold == UnitMemory(frozenset({0}), 112 * MIB)
    assert said == [
        (
            PROTECTED.name,
            "gold.slice has memory on nodes 0, 112 MiB of it never reclaimed: it is guaranteed"
            " DRAM, and has 100 MiB",
        )
    ]
    assert json.loads(bench.ledger.read_text())["gold.slice"]["before"] == {"nodes": [], "minimum": 0}
    assert bench.run(policy(GOLD)) is Exit.OK and len(said) == 1, "nothing to do"
    assert bench.run(policy()) is Exit.OK
    assert bench.gold == UnitMemory() and not bench.ledger.exists()
    assert said[1][0] == RELEASED.name and "all nodes" in said[1][1]


@pytest.mark.parametrize("wanted", [None, policy(GOLD, mode=EngineMode.OBSERVE)])
def test_when_tierd_stops_or_only_looks_all_is_as_before(
    bench: Bench, said: list[tuple[str, str]], wanted: Policy | None
) -> None:
    bench.run(policy(GOLD))
    bench.run(wanted)
    assert bench.gold == UnitMemory()


def test_where_much_is_not_in_dram_yet_it_comes_up_page_by_page_first(
    bench: Bench, said: list[tuple[str, str]]
) -> None:
    bench.hold("/gold.slice", {0: 100 * MIB, 1: LAST + MIB})
    bench.run(policy(GOLD))
    assert bench.gold == UnitMemory()
    bench.hold("/gold.slice", {0: 101 * MIB, 1: LAST})
    bench.run(policy(GOLD))
    assert bench.gold == UnitMemory(frozenset({0}), 128 * MIB)
    bench.hold("/gold.slice", {0: 110 * MIB, 1: 2 * LAST})
    bench.run(policy(GOLD))
    assert bench.gold == UnitMemory(frozenset({0}), 144 * MIB), "once it is protected, it stays so"


def test_rules_for_commands_and_excluded_units_protect_nothing(bench: Bench) -> None:
    by_command = ServiceClass("gold", (ClassRule(command="*"),), GUARANTEED)
    bench.run(policy(by_command))
    excluded = ProcessSelection(exclude=(ProcessMatch(unit="gold.slice"),))
    bench.run(Policy(excluded, EnginePolicy(mode=EngineMode.PLACE), classes=(GOLD, DEFAULT_CLASS)))
    assert bench.gold == UnitMemory() and not bench.ledger.exists()


def test_what_somebody_else_set_up_is_named_and_left_alone(
    bench: Bench, said: list[tuple[str, str]]
) -> None:
    bench.machine.add_process(2, "/system.slice/db.service")
    bench.hold("/system.slice/db.service", {0: 8 * MIB, 1: 0})
    bench.run(policy(ServiceClass("db", (ClassRule(unit="db.service"),), GUARANTEED)))
    assert bench.units.read("db.service") == UnitMemory(frozenset({0, 1}), 5 * MIB)
    (conflict,) = [words for kind, words in said if kind == UNPROTECTED.name]
    assert "the nodes 0, 1" in conflict


def test_where_a_part_is_promised_all_of_a_unit_is_kept_from_the_kernel_and_its_slice_with_it(
    bench: Bench, said: list[tuple[str, str]]
) -> None:
    bench.machine.add_process(2, "/system.slice/db.service")
    bench.hold("/system.slice/db.service", {0: 8 * MIB, 1: 90 * MIB})
    current = bench.machine.root.cgroup / "system.slice/db.service/memory.current"
    current.write_text(f"{120 * MIB}\n")
    share = DramShare(minimum=DramBound(per_cent=30))
    bench.run(policy(ServiceClass("db", (ClassRule(unit="db.service"),), share)))
    assert bench.units.read("db.service") == UnitMemory(frozenset({0, 1}), 128 * MIB)
    assert bench.units.read("system.slice") == UnitMemory(minimum=129 * MIB)
    assert any("promised DRAM (min 30%), and has 120 MiB in all" in words for _, words in said)
    bench.run(None)
    assert bench.units.read("system.slice") == UnitMemory(minimum=MIB)
    assert bench.units.read("db.service") == UnitMemory(frozenset({0, 1}), 5 * MIB)


def test_what_the_rest_is_promised_protects_no_unit(bench: Bench) -> None:
    rest = replace(DEFAULT_CLASS, dram=DramShare(minimum=DramBound(per_cent=30)))
    bench.run(Policy(engine=EnginePolicy(mode=EngineMode.PLACE), classes=(rest,)))
    assert bench.gold == UnitMemory()


def test_a_unit_that_cannot_be_set_holds_up_no_other(bench: Bench, said: list[tuple[str, str]]) -> None:
    bench.machine.add_process(2, "/vm.scope")
    bench.machine.add_process(3, "/unknown.scope")
    for cgroup in ("/vm.scope", "/unknown.scope"):
        bench.hold(cgroup, {0: 8 * MIB, 1: 0})
    everything = ServiceClass("all", (ClassRule(cgroup="*"),), GUARANTEED)
    assert bench.run(policy(everything)) is Exit.FAILED
    assert set(read_ledger(bench.ledger)) == {"gold.slice"} and bench.gold != UnitMemory()
    assert [kind for kind, _ in said] == [PROTECTED.name, UNPROTECTED.name]
    with pytest.raises(DeniedError):
        bench.units.set("vm.scope", UnitMemory())


def test_a_kill_before_systemd_hears_of_it_leaves_nothing_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, said: list[tuple[str, str]]
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(bench.units, "set", die)
        with pytest.raises(Killed):
            bench.run(policy(GOLD))
    assert set(read_ledger(bench.ledger)) == {"gold.slice"}
    bench.run(None)
    assert bench.gold == UnitMemory() and not bench.ledger.exists()


@pytest.mark.parametrize("text", ["[]", "{", '{"a": {"before": 1}}', '{"a": 3}'])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "protected.json"
    path.write_text(text)
    with pytest.raises(MalformedError, match=r"protected\.json"):
        read_ledger(path)


def test_without_a_bus(tmp_path: Path) -> None:
    with pytest.raises(TierdError, match="bus cannot be reached"):
        Units(f"unix:path={tmp_path}/none")


def test_an_ordinary_user_is_told(monkeypatch: pytest.MonkeyPatch, said: list[tuple[str, str]]) -> None:
    monkeypatch.setattr(program.os, "geteuid", lambda: 1000)
    assert program.main([]) == Exit.DENIED
    assert said == [(UNPROTECTED.name, "only root may change units")]


def test_the_daemon_says_when(tmp_path: Path) -> None:
    path = tmp_path / "protect"
    path.write_text("")
    trigger = ProtectionTrigger(path)

    def told(*classes: ClassState) -> bool:
        before = path.stat().st_mtime_ns, path.read_text()
        trigger.update(State(classes=classes))
        return (path.stat().st_mtime_ns, path.read_text()) != before

    gold = ClassState("gold", guaranteed=True, dram_bytes=100 * MIB, slow_bytes=LAST + 1)
    assert not told() and not told(gold), "much is not in DRAM yet"
    assert not told(ClassState("silver", dram_bytes=MIB)), "nothing is guaranteed"
    gold = replace(gold, slow_bytes=LAST)
    assert told(gold) and path.read_text() == "gold\n"
    assert not told(replace(gold, dram_bytes=100 * MIB + LAST, slow_bytes=0))
    assert not told(replace(gold, slow_bytes=LAST + 1)), "it is being brought up, and stays protected"
    assert told(replace(gold, dram_bytes=200 * MIB)), "it has grown"
    silver = ClassState("silver", least_bytes=30 * MIB, dram_bytes=40 * MIB, slow_bytes=60 * MIB)
    assert told(gold, silver) and not told(gold, replace(silver, dram_bytes=60 * MIB, slow_bytes=40 * MIB))
    assert told() and not told(), "the policy promises nothing any more"
    ProtectionTrigger(tmp_path / "none" / "protect").update(State(classes=(gold,)))
