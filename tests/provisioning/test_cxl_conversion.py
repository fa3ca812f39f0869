"""CXL memory on a simulated machine: regions made, adopted, given back; a tool that lies; kills."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kernel.fixtures.simulated_cxl import BLOCK, GIB, MIB, SimulatedCxl
from tierd.core.cxl import CxlPlan, plan_cxl
from tierd.core.cxl_text import cxl_document, cxl_lines
from tierd.core.policy import CxlRequest, ProvisionMode
from tierd.core.provision import Setting, Step, Verdict
from tierd.errors import GoneError
from tierd.kernel.cxl import take_cxl
from tierd.kernel.intents import Intent, Intents
from tierd.kernel.memory_blocks import write_setting
from tierd.service.conversion import ConversionError
from tierd.service.cxl_conversion import CxlConverter

ALL = CxlRequest("cxl0", (0x1234,), None, ProvisionMode.APPLY)
NONE = CxlRequest("cxl0", (0x1234,), 0, ProvisionMode.APPLY)
CREATE = f"create-region -t ram -d decoder0.0 -m -w 1 -s {GIB} mem0"
MOVABLE = ["online Movable"] * 8
TAKE_DOWN = ["disable-region region9", "destroy-region region9"]


class Bench:
    def __init__(self, directory: Path) -> None:
        self.machine = SimulatedCxl(directory).begin()
        self.record = directory / "conversions.jsonl"
        self.reports: list[tuple[str, str]] = []
        self.now = 0.0

    @property
    def intents(self) -> Intents:
        return Intents(self.record, self.machine.root)

    @property
    def converter(self) -> CxlConverter:
        tree = self.machine
        return CxlConverter(tree.root, tree.tools, self.intents, self._report, self._clock, self._sleep, 5.0)

    def _report(self, kind: str, words: str, fields: Mapping[str, str]) -> None:
        self.reports.append((kind, words))

    def _clock(self) -> float:
        return self.now

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def plan(self, request: CxlRequest = ALL) -> CxlPlan:
        return plan_cxl(take_cxl(self.machine.root, self.machine.tools, self.intents), request)

    def by_others(self, zone: str, driver: str = "kmem", name: str = "region3") -> None:
        """A region that tierd did not make."""
        state = self.machine.load()
        region = {"size": GIB, "ways": 1, "committed": True, "driver": driver, "targets": [["mem0", 0]]}
        state["regions"][name] = region
        self.machine.save(state)
        if driver == "kmem":
            self.machine.add_memory(GIB, zone)
        self.machine.draw()

    def switch_to_devdax(self) -> None:
        """Tierd's own region, by an administrator."""
        self.free()
        state = self.machine.load()
        state["regions"]["region9"]["driver"] = "device_dax"
        self.machine.save(state)
        self.machine.draw()

    def free(self, *regions: str) -> None:
        """All memory of the devices goes, and those regions."""
        for path in self.machine.root.memory_blocks.glob("memory[0-9]*/state"):
            path.write_text("offline\n")
        assert self.machine.remove_memory()
        state = self.machine.load()
        for region in regions:
            del state["regions"][region]
        self.machine.save(state)
        self.machine.draw()

    def use(self) -> None:
        """A process maps dax0.0."""
        maps = "7f0000000000-7f0000200000 rw-s 00000000 00:06 1 /dev/dax0.0"
        for name, content in {"comm": "postgres", "maps": maps, "mountinfo": ""}.items():
            self.machine.write(f"proc/4242/{name}", content)
        for name in ("fd", "ns"):
            (self.machine.root.proc / "4242" / name).mkdir()
        (self.machine.root.proc / "4242/ns/mnt").symlink_to("mnt:[1]")

    def vice(self, vice: str) -> None:
        self.machine.save({**self.machine.load(), "vice": vice})

    def records(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.record.read_text().splitlines()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def kinds(plan: CxlPlan) -> list[str]:
    return [refusal.kind for refusal in plan.refusals]


def test_a_region_is_made_as_predicted_and_a_second_run_runs_nothing(bench: Bench) -> None:
    predicted = bench.plan()
    assert predicted.verdict is Verdict.READY and predicted.numbers is not None
    assert (predicted.numbers.memory, predicted.numbers.blocks) == (GIB, 8)
    done = bench.converter.run_cxl(ALL)
    assert done.verdict is Verdict.DONE and done.target_node == 2 and not done.adopted
    assert bench.machine.acts() == [CREATE]
    assert bench.machine.blocks() == MOVABLE
    assert bench.machine.policy() == "online"
    assert bench.converter.run_cxl(ALL).verdict is Verdict.DONE
    assert bench.machine.acts() == [CREATE] and len(bench.records()) == 2
    intent, result = bench.records()
    assert intent["saved"] == {"devices/system/memory/auto_online_blocks": "online"}
    assert result["outcome"] == "done"


def test_it_is_given_back_and_can_be_had_again(bench: Bench) -> None:
    bench.converter.run_cxl(ALL)
    assert bench.plan(NONE).verdict is Verdict.READY
    assert bench.converter.run_cxl(NONE).verdict is Verdict.DONE
    assert bench.machine.acts() == [CREATE, *TAKE_DOWN]
    assert bench.machine.blocks() == [] and bench.intents.cxl_made() == frozenset()
    assert bench.converter.run_cxl(ALL).verdict is Verdict.DONE
    assert bench.machine.blocks() == MOVABLE


def test_several_devices_are_interleaved_in_the_order_of_the_policy(bench: Bench) -> None:
    both = CxlRequest("cxl0", (0x1235, 0x1234), 600 * MIB, ProvisionMode.APPLY)
    done = bench.converter.run_cxl(both)
    assert done.region is not None and done.region.memdevs == ("mem1", "mem0")
    assert bench.machine.acts() == [f"create-region -t ram -d decoder0.0 -m -w 2 -s {GIB} mem1 mem0"]
    # half of each is left, for a region of its own
    alone = bench.plan(CxlRequest("other", (0x1234,), None))
    assert alone.verdict is Verdict.READY and alone.numbers is not None
    assert alone.numbers.memory == GIB // 2
    assert kinds(bench.plan(CxlRequest("other", (0x1234,), GIB))) == ["capacity"]
    assert "in region9" in bench.plan(CxlRequest("other", (0x1234,), GIB)).refusals[0].words


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (CxlRequest("x", (0x9,), None), "memdev-not-found"),
        (CxlRequest("x", (0x1234,), 2 * GIB), "capacity"),
    ],
)
def test_refusals(bench: Bench, request_: CxlRequest, kind: str) -> None:
    plan = bench.plan(request_)
    assert plan.verdict is Verdict.REFUSED and kinds(plan) == [kind]
    assert bench.converter.run_cxl(request_).verdict is Verdict.REFUSED
    assert bench.machine.acts() == []


def test_the_ratio_can_be_forced(bench: Bench) -> None:
    machine = take_cxl(bench.machine.root, bench.machine.tools, bench.intents)
    (dram,) = (node for node in machine.inventory.nodes if node.dram)
    inventory = replace(machine.inventory, nodes=(replace(dram, total=100 * MIB, available=98 * MIB),))
    little = replace(machine, inventory=inventory)
    assert kinds(plan_cxl(little, ALL)) == ["ratio"]
    assert plan_cxl(little, replace(ALL, force_ratio=True)).verdict is Verdict.READY


def test_without_the_tool_or_a_kernel_that_can(bench: Bench) -> None:
    (bench.machine.bin / "cxl").unlink()
    decoder = bench.machine.root.cxl_devices / "decoder0.0/create_ram_region"
    decoder.unlink()
    assert kinds(bench.plan()) == ["no-window", "no-tool"]


@pytest.mark.parametrize("zone", ["Movable", "Normal"])
def test_what_others_made_is_adopted_and_the_region_left(bench: Bench, zone: str) -> None:
    bench.by_others(zone)
    plan = bench.converter.run_cxl(ALL)
    assert plan.verdict is Verdict.DONE and plan.adopted
    assert any("made by others" in note for note in plan.notes)
    fixed = any("8 memory blocks of dax0.0 are online in Normal" in note for note in plan.notes)
    assert fixed is (zone == "Normal")
    assert bench.machine.acts() == [] and not bench.record.exists()
    gone = bench.converter.run_cxl(NONE)
    if zone == "Normal":
        assert kinds(gone) == ["zone"] and bench.machine.blocks() == ["online Normal"] * 8
        return
    assert gone.verdict is Verdict.DONE and set(bench.machine.blocks()) == {"offline Movable"}
    assert bench.machine.acts() == []


def test_offline_memory_of_others_is_brought_online_movable(bench: Bench) -> None:
    bench.by_others("offline")
    plan = bench.plan()
    assert [step.action.value for step in plan.steps] == ["online-blocks"]
    assert [getattr(act, "value", None) for act in plan.steps[0].acts] == ["online_movable"] * 8


def test_blocks_that_others_take_offline_stay_so(bench: Bench) -> None:
    bench.converter.run_cxl(ALL)
    done = bench.records()
    block = next(bench.machine.root.memory_blocks.glob("memory[0-9]*/state"))
    block.write_text("offline\n")
    plan = bench.converter.run_cxl(ALL)
    assert plan.verdict is Verdict.DONE and block.read_text() == "offline\n"
    assert "1 block of dax0.0 taken offline by somebody else, and left so" in plan.notes[-1]
    assert bench.records() == done
    assert bench.converter.run_cxl(NONE).verdict is Verdict.DONE
    assert bench.converter.run_cxl(ALL).verdict is Verdict.DONE
    assert set(bench.machine.blocks()) == {"online Movable"}


def test_a_device_that_others_hold_is_left_alone(bench: Bench) -> None:
    bench.by_others("", driver="device_dax")
    assert kinds(bench.converter.run_cxl(ALL)) == ["devdax"]
    assert bench.machine.acts() == []


def test_memory_in_the_wrong_zone_is_rolled_back(bench: Bench) -> None:
    bench.vice("zone")
    with pytest.raises(ConversionError, match="8 of 8 blocks of region9 are not online in ZONE_MOVABLE"):
        bench.converter.run_cxl(ALL)
    assert bench.machine.acts() == [CREATE, *TAKE_DOWN]
    assert bench.machine.blocks() == [] and bench.machine.policy() == "online"
    assert bench.records()[-1]["outcome"] == "failed" and bench.intents.cxl_made() == frozenset()


def test_a_tool_that_says_it_did_and_did_not(bench: Bench) -> None:
    bench.vice("nothing")
    with pytest.raises(ConversionError, match="the region is not there"):
        bench.converter.run_cxl(ALL)
    assert bench.machine.policy() == "online" and bench.intents.cxl_made() == frozenset()


def test_a_half_made_region_is_taken_down_at_once(bench: Bench) -> None:
    bench.vice("half")
    with pytest.raises(ConversionError, match="exit code 1.*region9 was taken down again"):
        bench.converter.run_cxl(ALL)
    assert bench.machine.load()["regions"] == {}


class Killed(BaseException):
    """As SIGKILL would: nothing of the converter's own runs after it."""


def killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed over the tool that makes the region."""

    def perform(self: CxlConverter, intent: Intent, step: Step) -> str:
        for act in step.acts[:2]:
            if isinstance(act, Setting):
                write_setting(self.root, act.path, act.value)
            else:
                self.tools.run(act.argv)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(CxlConverter, "_perform", perform)
        with pytest.raises(Killed):
            bench.converter.run_cxl(ALL)


@pytest.mark.parametrize("vice", ["", "half", "nothing"])
def test_a_run_that_was_killed_over_the_tool_is_got_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, vice: str
) -> None:
    bench.vice(vice)
    killed(bench, monkeypatch)
    assert bench.machine.policy() == "online_movable" and bench.intents.cxl_made() == frozenset()
    bench.vice("")
    again = bench.converter
    again.recover()
    assert bench.machine.policy() == "online"
    assert again.run_cxl(ALL).verdict is Verdict.DONE
    assert bench.machine.blocks() == MOVABLE and len(bench.machine.load()["regions"]) == 1
    # it is known as tierd's own, and goes again
    assert not bench.plan().adopted and bench.converter.run_cxl(NONE).verdict is Verdict.DONE
    assert bench.machine.load()["regions"] == {}


def test_what_others_made_after_a_kill_is_not_taken_for_what_the_run_began(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.vice("nothing")
    killed(bench, monkeypatch)
    bench.vice("")
    bench.by_others("", driver="device_dax")
    again = bench.converter
    again.recover()
    assert kinds(again.run_cxl(ALL)) == ["devdax"] and bench.machine.acts() == [CREATE]


@pytest.mark.parametrize("told", [True, False], ids=["used", "untold"])
@pytest.mark.parametrize("request_", [ALL, NONE])
def test_a_region_of_its_own_that_somebody_uses_is_left_alone(
    bench: Bench, told: bool, request_: CxlRequest
) -> None:
    bench.converter.run_cxl(ALL)
    bench.switch_to_devdax()
    bench.use()
    words = r"region9 is in use, and left alone: process 4242 \(postgres\) has it mapped"
    if not told:
        (bench.machine.root.dax_devices / "dax0.0/dev").unlink()
        words = "who uses dax0.0 of region9 cannot be told"
    with pytest.raises(ConversionError, match=words):
        bench.converter.run_cxl(request_)
    assert bench.machine.acts() == [CREATE]
    # and when the process has ended, it is made anew
    shutil.rmtree(bench.machine.root.proc / "4242")
    bench.machine.draw()
    assert bench.converter.run_cxl(request_).verdict is Verdict.DONE
    assert bench.machine.acts()[:3] == [CREATE, *TAKE_DOWN]


@pytest.mark.parametrize("name", ["region3", "region9"])
def test_a_region_of_others_in_the_place_of_its_own_is_left_alone(bench: Bench, name: str) -> None:
    """Names come again; the region is another one."""
    bench.converter.run_cxl(ALL)
    bench.free("region9")
    bench.by_others("", driver="device_dax", name=name)
    assert kinds(bench.converter.run_cxl(ALL)) == ["devdax"]
    assert bench.converter.run_cxl(NONE).verdict is Verdict.DONE
    assert bench.machine.acts() == [CREATE]


def test_an_unfinished_region_of_others_is_none_of_these_devices(bench: Bench) -> None:
    bench.converter.run_cxl(ALL)
    state = bench.machine.load()
    state["regions"]["region3"] = {"size": 0, "ways": 1, "committed": False, "driver": "", "targets": []}
    bench.machine.save(state)
    bench.machine.draw()
    assert bench.converter.run_cxl(ALL).verdict is Verdict.DONE
    bench.free("region9")
    assert bench.converter.run_cxl(ALL).verdict is Verdict.DONE
    assert bench.machine.acts() == [CREATE, CREATE] and "region3" in bench.machine.load()["regions"]


@pytest.mark.parametrize("driver", ["device_dax", "kmem"])
def test_a_region_that_others_were_quicker_to_make_is_left_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    perform = CxlConverter._perform

    def too_late(self: CxlConverter, intent: Intent, step: Step) -> str:
        bench.by_others("Movable", driver=driver)
        bench.machine.stub("cxl", "echo no capacity >&2; exit 228")
        return perform(self, intent, step)

    monkeypatch.setattr(CxlConverter, "_perform", too_late)
    with pytest.raises(ConversionError, match=r"the region is not there \(cxl ended .* no capacity\)$"):
        bench.converter.run_cxl(ALL)
    assert list(bench.machine.load()["regions"]) == ["region3"] and bench.plan().adopted


def test_of_two_that_appear_together_none_is_taken_down(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    perform = CxlConverter._perform

    def meanwhile(self: CxlConverter, intent: Intent, step: Step) -> str:
        said = perform(self, intent, step)
        bench.by_others("", driver="")
        return said

    monkeypatch.setattr(CxlConverter, "_perform", meanwhile)
    with pytest.raises(ConversionError, match="region3 and region9 are left alone"):
        bench.converter.run_cxl(ALL)
    assert bench.machine.acts() == [CREATE] and len(bench.machine.load()["regions"]) == 2


def test_that_udev_is_slow_is_no_failure_of_the_region(bench: Bench) -> None:
    bench.machine.stub("udevadm", "exit 1")
    assert bench.converter.run_cxl(ALL).verdict is Verdict.DONE and not bench.plan().adopted


def test_what_came_in_the_wrong_zone_behind_a_kill_is_brought_online_anew(bench: Bench) -> None:
    bench.converter.run_cxl(ALL)
    for path in (bench.machine.root.memory_blocks).glob("memory*/valid_zones"):
        path.write_text("Normal\n")
    plan = bench.plan()
    assert plan.verdict is Verdict.READY
    assert [step.action.value for step in plan.steps] == ["offline-blocks", "online-blocks"]
    assert len(plan.steps[1].acts) == 8


def test_after_a_reboot_the_region_is_made_again(bench: Bench) -> None:
    bench.converter.run_cxl(ALL)
    for block in bench.machine.root.memory_blocks.glob("memory[0-9]*/state"):
        block.write_text("offline\n")
    bench.machine.remove_memory()
    bench.machine.save({"regions": {}, "vice": ""})
    bench.machine.write("proc/sys/kernel/random/boot_id", "two")
    bench.machine.draw()
    assert bench.intents.cxl_made() == frozenset()
    assert bench.converter.run_cxl(ALL).verdict is Verdict.DONE
    assert bench.machine.acts() == [CREATE, CREATE]


def test_memory_that_comes_into_the_tier_of_dram_is_taken_down(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tierd.service.cxl_conversion.same_tier", lambda nodes, node: "memory_tier4" if node == 2 else None
    )
    with pytest.raises(ConversionError, match="node 2 came into memory_tier4 together with DRAM"):
        bench.converter.run_cxl(ALL)
    assert bench.machine.load()["regions"] == {}


def test_the_plan_in_words_and_as_json(bench: Bench) -> None:
    lines = cxl_lines(bench.plan(), "/sys")
    assert lines[:3] == [
        "cxl0: ready",
        "  asked       all of the volatile memory of CXL serial 0x1234",
        "  memory      becomes 1GiB in 8 blocks",
    ]
    assert f"       cxl {CREATE}" in lines
    document = cxl_document(bench.plan(), "/sys")
    assert document["verdict"] == "ready" and json.dumps(document)
    bench.converter.run_cxl(ALL)
    lines = cxl_lines(bench.plan(), "/sys")
    assert "  region      region9, made by tierd: 1GiB of mem0" in lines
    assert "  memory      is 1GiB in 8 blocks, node 2" in lines


def test_a_block_size_that_cuts_the_region(bench: Bench) -> None:
    bench.machine.write("sys/devices/system/memory/block_size_bytes", f"{16 * BLOCK:x}")
    assert kinds(bench.plan()) == ["capacity"]
    (bench.machine.root.memory_blocks / "block_size_bytes").unlink()
    with pytest.raises(GoneError):
        bench.plan()


def test_a_device_whose_way_is_not_found_yet_is_left_alone(bench: Bench) -> None:
    """Early in the boot its regions cannot be told, and its capacity would look free."""
    bench.by_others("Movable")
    assert bench.plan().verdict is Verdict.DONE
    (bench.machine.root.cxl_devices / "endpoint2").unlink()
    assert kinds(bench.plan()) == ["not-settled"]
    assert bench.converter.run_cxl(ALL).verdict is Verdict.REFUSED
    assert bench.machine.acts() == []
