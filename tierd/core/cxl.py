"""CXL memory: what is to be done about a request for it. Pure.

What these devices hold is volatile: nothing of it outlives a reboot, nor does a region that tierd made. So a
region is made anew at each boot, and nothing is lost when one is taken down but memory in use, which is
drained first. A region that others made (the firmware, an operator) is adopted: tierd brings its memory
online and takes it offline on request, and never takes the region itself down.

Planned for `tierctl provision plan` and for tierd-convert, which takes one step and
plans anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tierd.core import capacity, refusals
from tierd.core.cxl_machine import CxlMachine, CxlMemdev, CxlRegion, CxlWindow
from tierd.core.inventory import DaxDevice, Inventory, MemoryBlock
from tierd.core.policy import CxlRequest
from tierd.core.provision import (
    MEMORY_POLICY,
    ONLINE_POLICY,
    Action,
    Command,
    Numbers,
    Setting,
    Step,
    Verdict,
    left_offline,
)
from tierd.core.refusals import Refusal, same_tier
from tierd.core.text import plural
from tierd.core.units import format_size

GRANULE = 256 << 20
"""Bytes: the size of a region is a multiple of it for each of its devices (drivers/cxl/core/region.c,
alloc_hpa)."""

BLOCK_STATE = "devices/system/memory/memory{}/state"
"""The path of a memory block's state, below the sysfs root."""


@dataclass(frozen=True, slots=True)
class CxlPlan:
    """What to do about one request. `notes`: what an operator should know and what stops nothing."""

    request: CxlRequest
    verdict: Verdict
    region: CxlRegion | None = None
    adopted: bool = False
    steps: tuple[Step, ...] = ()
    numbers: Numbers | None = None
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def target_node(self) -> int | None:
        """The node of the memory; None as long as there is no device to ask."""
        return None if self.region is None or self.region.dax is None else self.region.dax.target_node

    @property
    def fixed(self) -> tuple[MemoryBlock, ...]:
        """Memory blocks that are online, and not movable."""
        blocks = () if self.region is None or self.region.dax is None else self.region.dax.blocks
        return tuple(block for block in blocks if block.online and not block.movable)


@dataclass(slots=True)
class _Work:
    machine: CxlMachine
    request: CxlRequest
    refused: list[Refusal] = field(default_factory=list)
    memdevs: list[CxlMemdev] = field(default_factory=list)

    @property
    def inventory(self) -> Inventory:
        return self.machine.inventory

    def find_memdevs(self) -> None:
        """The devices of the request, in its order."""
        for serial in self.request.serials:
            found = [memdev for memdev in self.machine.memdevs if memdev.serial == serial]
            if len(found) == 1:
                self.memdevs += found
                if not found[0].settled:
                    words = f"{found[0].name} has no endpoint: the kernel has not found the way to it"
                    self.refused.append(Refusal("not-settled", f"{words} yet, or cannot (dmesg says why)"))
            elif found:
                names = ", ".join(memdev.name for memdev in found)
                self.refused.append(Refusal("ambiguous-serial", f"{names} all have serial {serial:#x}"))
            else:
                known = ", ".join(f"{m.serial:#x} ({m.name})" for m in self.machine.memdevs if m.serial)
                words = f"no CXL memory device has serial {serial:#x}; there is {known or 'none'}"
                self.refused.append(Refusal("memdev-not-found", words))

    def ours(self, region: CxlRegion) -> bool:
        """Whether the record says that tierd made this very region."""
        return bool(region.identity) and (self.request.name, region.identity) in self.machine.made

    def regions(self) -> list[CxlRegion]:
        """Tierd's own region of these devices, whatever state it is in; else volatile ones of exactly
        these."""
        wanted = {memdev.name for memdev in self.memdevs}
        volatile = [region for region in self.machine.regions if region.mode in ("ram", "none")]
        exact = [region for region in volatile if set(region.memdevs) == wanted]
        unfinished = [r for r in volatile if not r.committed and set(r.memdevs) < wanted]
        return [region for region in (*exact, *unfinished) if self.ours(region)] or exact

    def create(self) -> CxlPlan:
        """A region out of what is free in the devices."""
        ways, block = len(self.memdevs), self.inventory.block_size
        names = ", ".join(memdev.name for memdev in self.memdevs)
        free = min(memdev.free for memdev in self.memdevs) * ways
        most = capacity.round_down(free, GRANULE * ways)
        size = most if self.request.size is None else capacity.round_up(self.request.size, GRANULE * ways)
        memory = capacity.round_down(size, block)
        numbers = Numbers(size, memory, memory // block, size - memory, capacity.page_structures(memory))
        window = self.window(size)
        if window is None:
            words = f"the firmware gives no window of {format_size(size)} for volatile memory of {names}, or"
            self.refused.append(Refusal("no-window", f"{words} this kernel cannot use it"))
        if not self.machine.tool:
            words = "cxl is not installed, which makes the region: `apt install cxl` (from Debian 13 on)"
            self.refused.append(Refusal("no-tool", words))
        if not memory or size > most:
            asked = "all" if self.request.size is None else format_size(size)
            mine = {memdev.name for memdev in self.memdevs}
            taken = [region.name for region in self.machine.regions if mine & set(region.memdevs)]
            free_words = f"{format_size(most)} is free" + (
                f", the rest is in {', '.join(taken)}" if taken else ""
            )
            words = f"not enough volatile capacity in {names}: {asked} is asked for, {free_words}"
            self.refused.append(Refusal("capacity", words))
        else:
            self.refused += refusals.of_dram(
                self.inventory, memory, numbers.page_structures, force_ratio=self.request.force_ratio
            )
        where = "decoderX.Y" if window is None else window.name
        how = ("-t", "ram", "-d", where, "-m", "-w", str(ways), "-s", str(size))
        acts: list[Command | Setting] = [
            Command(("cxl", "create-region", *how, *(memdev.name for memdev in self.memdevs))),
            # kmem takes the region when udev has loaded what it needs
            Command(("udevadm", "settle", "--timeout=60")),
        ]
        if self.inventory.online_policy != MEMORY_POLICY:
            acts.insert(0, Setting(ONLINE_POLICY, MEMORY_POLICY))
            acts.append(Setting(ONLINE_POLICY, self.inventory.online_policy))
        words = f"make a region of {format_size(size)} out of {names}, which the kernel takes as memory"
        step = Step(Action.CREATE_CXL_REGION, tuple(acts), f"{words} in ZONE_MOVABLE")
        return self.result(Verdict.READY, steps=(step,), numbers=numbers)

    def window(self, size: int) -> CxlWindow | None:
        """The root decoder to make a region of `size` bytes in: one that interleaves just the host bridges
        that the devices are behind."""
        bridges = {memdev.bridge for memdev in self.memdevs}
        fitting = (w for w in self.machine.windows if w.volatile and w.bridges == bridges and w.free >= size)
        return next(fitting, None)

    def bring_up(self, region: CxlRegion) -> CxlPlan:
        """The region is there: what remains."""
        adopted = not self.ours(region)
        dax = region.dax
        if dax is None or not region.enabled or not region.committed or not dax.system_ram:
            if adopted:
                self.refused.append(_idle(region))
                return self.result(Verdict.READY, region)
            # it is made anew; whether somebody uses it is asked before it goes
            made = self.create_after(region)
            steps = (take_down(region), *made.steps)
            return self.result(Verdict.READY, region, steps, made.numbers)
        wanted = capacity.whole_blocks(dax.span, self.inventory.block_size)
        fixed = [block for block in dax.blocks if block.online and not block.movable]
        offline = [block for block in dax.blocks if not block.online]
        count = wanted.size // self.inventory.block_size
        numbers = Numbers(region.size, wanted.size, count, region.size - wanted.size, 0)
        if fixed and not adopted:
            # they came while nobody held the kernel's policy: movable, or not at all
            steps = (_offline(region, tuple(fixed), "take"), _online(dax.name, (*offline, *fixed)))
            return self.result(Verdict.READY, region, steps, numbers)
        notes = self.notes(region, fixed, wanted.size)
        if offline and region.identity in self.inventory.whole:
            return self.result(Verdict.DONE, region, (), numbers, (*notes, left_offline(dax, len(offline))))
        if offline:
            return self.result(Verdict.READY, region, (_online(dax.name, tuple(offline)),), numbers, notes)
        if len(dax.blocks) < count:
            words = f"the kernel took only {len(dax.blocks)} of {count} memory blocks of {dax.name}"
            self.refused.append(Refusal("missing-blocks", words))
        return self.result(Verdict.DONE, region, (), numbers, notes)

    def create_after(self, region: CxlRegion) -> CxlPlan:
        """What is made when `region` has gone."""
        share = region.size // max(region.ways, 1)
        freed = [replace(m, free=m.free + share) if m.name in region.memdevs else m for m in self.memdevs]
        windows = tuple(
            replace(w, free=w.free + region.size) if w.name == region.window else w
            for w in self.machine.windows
        )
        machine = replace(self.machine, windows=windows)
        # what is refused of it is refused of this
        return _Work(machine, self.request, self.refused, freed).create()

    def notes(self, region: CxlRegion, fixed: list[MemoryBlock], memory: int) -> tuple[str, ...]:
        assert region.dax is not None
        found, node = [], region.dax.target_node
        if not self.ours(region):
            found.append(f"{region.name} was made by others: tierd adopts its memory, and leaves the region")
        if fixed:
            zones = "/".join(sorted({block.zone or "an unknown zone" for block in fixed}))
            found.append(
                f"{plural(len(fixed), 'memory block')} of {region.dax.name} are online in {zones}, not"
                " Movable: the kernel may keep memory of its own there, and they cannot leave for certain"
            )
        if self.request.size is not None and memory < self.request.size:
            found.append(
                f"{format_size(self.request.size)} is asked for, {region.name} has {format_size(memory)}: a"
                " region of CXL memory cannot be resized; ask for `none` first to have it made anew"
            )
        if tier := same_tier(self.inventory.nodes, node):
            found.append(f"node {node} is in {tier} together with DRAM: the kernel and tierd see one tier")
        return tuple(found)

    def release(self, region: CxlRegion) -> CxlPlan:
        """The memory goes; the region too, when tierd made it."""
        adopted = not self.ours(region)
        dax, block = region.dax, self.inventory.block_size
        online = () if dax is None else self.online(dax)
        fixed = [b for b in online if not b.movable]
        if fixed:
            words = f"{plural(len(fixed), 'memory block')} of {region.name} are online outside ZONE_MOVABLE,"
            self.refused.append(
                Refusal("zone", f"{words} and may hold memory of the kernel, which cannot leave")
            )
        target = None if dax is None else dax.target_node
        self.refused += refusals.of_room(self.inventory, target, len(online) * block)
        steps = [_offline(region, online, "drain")] if online else []
        notes = []
        if not adopted:
            steps.append(take_down(region))
        elif dax is not None and dax.system_ram:
            notes.append(f"{region.name} was made by others: its memory is offline, and the region stays")
        leaving = 0 if dax is None else len(dax.blocks) * block
        spent = 0 if adopted else -capacity.page_structures(leaving)
        numbers = Numbers(region.size, 0, 0, 0, spent)
        verdict = Verdict.READY if steps else Verdict.DONE
        return self.result(verdict, region, tuple(steps), numbers, tuple(notes))

    def online(self, dax: DaxDevice) -> tuple[MemoryBlock, ...]:
        return tuple(block for block in dax.blocks if block.online)

    def result(
        self,
        verdict: Verdict,
        region: CxlRegion | None = None,
        steps: tuple[Step, ...] = (),
        numbers: Numbers | None = None,
        notes: tuple[str, ...] = (),
    ) -> CxlPlan:
        adopted = region is not None and not self.ours(region)
        verdict = Verdict.REFUSED if self.refused else verdict
        return CxlPlan(
            self.request, verdict, region, adopted, steps, numbers, tuple(dict.fromkeys(self.refused)), notes
        )


def plan_cxl(machine: CxlMachine, request: CxlRequest) -> CxlPlan:
    """What is to be done about `request`, or every reason why nothing is. Raises nothing."""
    work = _Work(machine, request)
    work.find_memdevs()
    if work.refused:
        return work.result(Verdict.REFUSED)
    regions = work.regions()
    if len(regions) > 1:
        names = ", ".join(region.name for region in regions)
        work.refused.append(Refusal("ambiguous-region", f"{names} all consist of these devices"))
        return work.result(Verdict.REFUSED)
    if request.size == 0:
        return (
            work.release(regions[0])
            if regions
            else work.result(Verdict.DONE, numbers=Numbers(0, 0, 0, 0, 0))
        )
    return work.bring_up(regions[0]) if regions else work.create()


def _idle(region: CxlRegion) -> Refusal:
    """A region of others that is no memory now."""
    if region.dax is not None and region.enabled and region.committed:
        device = region.dax.name
        words = f"{device} of {region.name} is in devdax mode, made so by others, and somebody may use it;"
        return Refusal(
            "devdax", f"{words} `daxctl reconfigure-device -m system-ram {device}` makes it memory"
        )
    words = (
        f"{region.name} was made by others and is not in use; `cxl enable-region {region.name}` enables it"
    )
    return Refusal("region-disabled", words)


def _offline(region: CxlRegion, online: tuple[MemoryBlock, ...], verb: str) -> Step:
    acts = tuple(Setting(BLOCK_STATE.format(block.number), "offline") for block in reversed(online))
    words = f"{verb} {plural(len(online), 'memory block')} of {region.name}"
    after = (
        " and take them offline, the last one first" if verb == "drain" else " offline, the last one first"
    )
    return Step(Action.OFFLINE_BLOCKS, acts, f"{words}{after}; what is in use there moves to other memory")


def _online(device: str, blocks: tuple[MemoryBlock, ...]) -> Step:
    acts = tuple(Setting(BLOCK_STATE.format(block.number), MEMORY_POLICY) for block in blocks)
    words = f"bring {plural(len(blocks), 'memory block')} of {device} online in ZONE_MOVABLE"
    return Step(Action.ONLINE_BLOCKS, acts, words)


def take_down(region: CxlRegion) -> Step:
    """The step that makes a region of tierd's own free capacity again, whatever state it is in."""
    acts: tuple[Command | Setting, ...] = (
        Command(("cxl", "disable-region", region.name)),
        Command(("cxl", "destroy-region", region.name)),
    )
    if not region.ways:
        # `cxl` takes down none that is so unfinished: "error getting interleave ways" (seen on 7.3)
        acts = (Setting(f"bus/cxl/devices/{region.window}/delete_region", region.name),)
    words = f"take {region.name} down: its {format_size(region.size)} are free capacity of the devices again"
    return Step(Action.DESTROY_CXL_REGION, acts, words)
