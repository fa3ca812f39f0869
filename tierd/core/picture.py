"""Everything that provisioning deals with in one picture, and what tierd could make of each part. Pure.

What may be done and why not is core/provision.py's and core/refusals.py's to say; here they are only asked.
Filled by kernel/picture.py, shown by `tierctl list devices`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tierd.core import capacity, health, provision, refusals
from tierd.core.cxl import plan_cxl
from tierd.core.cxl_machine import CxlMachine, CxlMemdev, CxlRegion
from tierd.core.inventory import (
    SYSTEM_RAM_DRIVER,
    DaxDevice,
    Dimm,
    Inventory,
    MemoryBlock,
    MemoryNode,
    Namespace,
    Region,
)
from tierd.core.kinds_of_device import DaxKind
from tierd.core.memory_side_cache import MemorySideCache
from tierd.core.model import Tier
from tierd.core.policy import CxlRequest, ProvisionRequest
from tierd.core.provision import Verdict
from tierd.core.refusals import LABEL_PREFIX, Refusal


@dataclass(frozen=True, slots=True)
class DaxView:
    """A dax device as everybody may see it. Sizes in bytes.

    namespace: the name of the one that it belongs to, None for soft-reserved and CXL memory, or when that is
    not known. device: with addresses and memory blocks; None when the reader may not see them.
    """

    name: str
    size: int
    driver: str
    target_node: int | None
    namespace: str | None
    device: DaxDevice | None
    kind: DaxKind = DaxKind.UNKNOWN


@dataclass(frozen=True, slots=True)
class Picture:
    """All of it.

    listed: whether ndctl said which DIMMs, regions and namespaces there are.
    inventory: None when the kernel has no memory hotplug, or it could not be taken.
    sizes: bytes of each region and namespace, by its name; everybody may read them.
    block_devices: by the name of their namespace. users: who uses a device, in words, by its name.
    blind: whether addresses or tierd's record were left out, which only root may read.
    unseen: what is not shown and why, one sentence each. faults: the same, when something failed.
    """

    listed: bool
    dimms: tuple[Dimm, ...]
    inventory: Inventory | None
    sizes: Mapping[str, int]
    block_devices: Mapping[str, str]
    dax: tuple[DaxView, ...]
    users: Mapping[str, tuple[str, ...]]
    blocks: tuple[MemoryBlock, ...]
    nodes: tuple[MemoryNode, ...]
    tiers: tuple[Tier, ...]
    blind: bool
    unseen: tuple[str, ...]
    faults: tuple[str, ...]
    caches: tuple[MemorySideCache, ...] = ()
    cxl: CxlMachine | None = None


@dataclass(frozen=True, slots=True)
class Prospect:
    """What tierd could do with a part. verdict: None when the reader may not see enough to tell.

    memory, blocks, lost, page_structures: bytes and a count as in provision.Numbers, of what it would be as
    memory, or is; page_structures is all that it costs, also of what is there already. None when there is
    nothing to count. request: the one that tierd made it for. reasons: why not, or what is wrong with it.
    """

    verdict: Verdict | None
    memory: int | None = None
    blocks: int | None = None
    lost: int | None = None
    page_structures: int | None = None
    request: str | None = None
    reasons: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class BlockRun:
    """Memory blocks of the same kind, one behind the other: `count` from number `first` on.

    device: the dax device that they are made of, None for memory that was there at boot, or when that is not
    known.
    """

    first: int
    count: int
    online: bool
    zone: str | None
    node: int | None
    device: str | None


def of_region(inventory: Inventory, region: Region, *, blind: bool = False) -> Prospect:
    """What all the free capacity of a region would become."""
    if region.iset_id is None or blind:
        found = (*refusals.of_region(inventory, region, region.target_node), *health.of_modules(region))
        if region.iset_id is None and not found:
            found = (Refusal("no-iset-id", f"{region.name} has no iset_id: no policy can name it"),)
        return Prospect(Verdict.REFUSED if found else None, reasons=found)
    # a name that no policy can have, so that no namespace is its own
    return _of_plan(provision.plan(inventory, ProvisionRequest("?", region.iset_id, None)))


def of_namespace(
    inventory: Inventory, region: Region, namespace: Namespace, *, blind: bool = False
) -> Prospect:
    """What tierd would do with a namespace that is there, if a policy asked for it."""
    if not namespace.label.startswith(LABEL_PREFIX):
        return Prospect(Verdict.REFUSED, reasons=(refusals.not_ours(namespace),))
    name = namespace.label.removeprefix(LABEL_PREFIX)
    if region.iset_id is None or blind:
        found = (*refusals.of_region(inventory, region, region.target_node), *health.of_modules(region))
        return Prospect(Verdict.REFUSED if found else None, request=name, reasons=found)
    return _of_plan(provision.plan(inventory, ProvisionRequest(name, region.iset_id, None)), name)


def of_device(picture: Picture, view: DaxView) -> Prospect | None:
    """What tierd would do with a dax device; None for one that belongs to a namespace, which says it, and
    where that is not known."""
    if view.namespace is not None or not picture.listed:
        return None
    if view.driver != SYSTEM_RAM_DRIVER:
        return Prospect(Verdict.REFUSED, reasons=(refusals.without_region(view.name, view.kind),))
    if view.device is None or picture.inventory is None:
        return Prospect(Verdict.DONE)
    blocks = view.device.blocks
    memory = sum(block.online for block in blocks) * picture.inventory.block_size
    return Prospect(
        Verdict.DONE,
        memory=memory,
        blocks=sum(block.online for block in blocks),
        page_structures=capacity.page_structures(memory),
        reasons=tuple(refusals.of_blocks(view.device, range(0), frozenset())),
    )


def of_memdev(machine: CxlMachine, memdev: CxlMemdev) -> Prospect | None:
    """What all that a CXL device offers would become, in a region of its own; None when it is in one
    already, which says it."""
    if any(memdev.name in region.memdevs for region in machine.regions):
        return None
    if memdev.serial is None:
        words = f"{memdev.name} has no serial number: no policy can name it"
        return Prospect(Verdict.REFUSED, reasons=(Refusal("no-serial", words),))
    # a name that no policy can have, so that no region is its own
    plan = plan_cxl(machine, CxlRequest("?", (memdev.serial,), None))
    numbers = plan.numbers
    if numbers is None or not numbers.memory:
        return Prospect(plan.verdict, reasons=plan.refusals)
    spent = capacity.page_structures(numbers.memory)
    return Prospect(plan.verdict, numbers.memory, numbers.blocks, numbers.lost, spent, reasons=plan.refusals)


def region_words(machine: CxlMachine, region: CxlRegion) -> str:
    """What a region of CXL memory is now, in one sentence."""
    if region.mode == "pmem":
        return f"{region.name} is persistent: what is in it, the regions on the nd bus say"
    if not region.committed or not region.enabled:
        return f"{region.name} is not in use: no driver has it"
    if not region.devices:
        return f"{region.name} has no dax device: are the modules dax_cxl and kmem loaded?"
    return f"what {region.name} is used for, {region.devices[0]} says"


def of_node(picture: Picture, node: MemoryNode) -> str | None:
    """Why tierd cannot use a node as a tier of its own; None when it can."""
    tier = None if node.dram else refusals.same_tier(picture.nodes, node.number)
    return f"it is in {tier} together with DRAM" if tier else None


def block_runs(picture: Picture) -> Iterator[BlockRun]:
    """The memory blocks, alike ones that follow each other taken together."""
    owners = {block.number: view.name for view in picture.dax if view.device for block in view.device.blocks}
    run: BlockRun | None = None
    for block in picture.blocks:
        kind = (block.online, block.zone, block.node, owners.get(block.number))
        if (
            run is not None
            and block.number == run.first + run.count
            and kind == (run.online, run.zone, run.node, run.device)
        ):
            run = BlockRun(run.first, run.count + 1, *kind)
            continue
        if run is not None:
            yield run
        run = BlockRun(block.number, 1, *kind)
    if run is not None:
        yield run


def _of_plan(plan: provision.ProvisionPlan, request: str | None = None) -> Prospect:
    numbers = plan.numbers
    if numbers is None:
        return Prospect(plan.verdict, request=request, reasons=plan.refusals)
    return Prospect(
        verdict=plan.verdict,
        memory=numbers.memory,
        blocks=numbers.blocks,
        lost=numbers.lost,
        page_structures=capacity.page_structures(numbers.memory),
        request=request,
        reasons=plan.refusals,
    )
