"""From what is there and what was asked to what is to be done: a plan of steps with their reasons and
numbers.

The plan is a value. `tierctl provision plan` prints it, tierd-convert runs it: one step, then a new look at
the machine and a new plan, so that whatever stopped an earlier run at any point, the next one does only what
remains. Here: one namespace. What a whole request needs of them, core/shares.py says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from tierd.core import capacity, health, refusals
from tierd.core.inventory import DaxDevice, Inventory, Namespace, Region, Span
from tierd.core.policy import ProvisionRequest
from tierd.core.refusals import Refusal, label_of, same_tier
from tierd.core.text import plural
from tierd.core.units import format_size

NAMESPACE_ALIGNMENT = capacity.NAMESPACE_ALIGNMENT
MEMORY_POLICY = "online_movable"
ONLINE_POLICY = "devices/system/memory/auto_online_blocks"
"""Below the sysfs root: what the kernel does with memory blocks that appear."""

NEW_DEVICE = "daxX.Y"
"""Stands in a step for the device of a namespace that has not been made."""


class Verdict(StrEnum):
    """`done`: it is as asked, and nothing is run. `ready`: the steps may be run. `refused`: they may not."""

    DONE = "done"
    READY = "ready"
    REFUSED = "refused"


class Action(StrEnum):
    """What a step does."""

    CREATE_NAMESPACE = "create-namespace"
    SIZE_NAMESPACE = "size-namespace"
    FINISH_NAMESPACE = "finish-namespace"
    SYSTEM_RAM = "system-ram"
    ONLINE_BLOCKS = "online-blocks"
    OFFLINE_BLOCKS = "offline-blocks"
    DEVDAX = "devdax"
    DESTROY_NAMESPACE = "destroy-namespace"
    TAKE_NAMESPACE = "take-namespace"
    CREATE_CXL_REGION = "create-cxl-region"
    DESTROY_CXL_REGION = "destroy-cxl-region"


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments; kernel/tools.py knows its absolute path."""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """A value written to a file; `path` is relative to the sysfs root."""

    path: str
    value: str


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do: what it runs and writes, in order, and why, in words.

    unrecoverable: what cannot be read back once the step has begun, in words; empty when all can.
    """

    action: Action
    acts: tuple[Command | Setting, ...]
    words: str
    unrecoverable: str = ""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Bytes. memory: what the namespace is, or will be, as memory, in whole blocks; blocks: how many.

    lost: what of the namespace becomes nothing, for the info block and the blocks it cuts through.
    page_structures: DRAM that the steps still to be run will spend; negative when they give it back.
    """

    namespace: int
    memory: int
    blocks: int
    lost: int
    page_structures: int


@dataclass(frozen=True, slots=True)
class ProvisionPlan:
    """What to do about one request. `notes`: what an operator should know and what stops nothing."""

    request: ProvisionRequest
    verdict: Verdict
    region: str | None = None
    namespace: Namespace | None = None
    target_node: int | None = None
    steps: tuple[Step, ...] = ()
    numbers: Numbers | None = None
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()


def find_namespace(inventory: Inventory, request: ProvisionRequest) -> Namespace | None:
    """The request's namespace in its region; None when there is none, or more than one."""
    label = label_of(request)
    found = [
        n
        for r in inventory.regions
        if r.iset_id == request.iset_id
        for n in r.namespaces
        if n.label == label
    ]
    return found[0] if len(found) == 1 else None


def plan(inventory: Inventory, request: ProvisionRequest) -> ProvisionPlan:
    """What is to be done about `request`, or every reason why nothing is. Raises nothing."""
    regions = [r for r in inventory.regions if r.iset_id == request.iset_id]
    if len(regions) > 1:
        names = ", ".join(r.name for r in regions)
        refusal = Refusal("ambiguous-region", f"{names} all have iset_id 0x{request.iset_id:x}")
        return ProvisionPlan(request, Verdict.REFUSED, refusals=(refusal,))
    if not regions:
        return ProvisionPlan(
            request, Verdict.REFUSED, refusals=(refusals.region_not_found(inventory, request),)
        )
    region = regions[0]
    label = label_of(request)
    ours = [n for n in region.namespaces if n.label == label]
    if len(ours) > 1:
        names = ", ".join(n.name for n in ours)
        refusal = Refusal("ambiguous-label", f"{names} in {region.name} are all labelled {label}")
        return ProvisionPlan(request, Verdict.REFUSED, region.name, refusals=(refusal,))
    if ours:
        return plan_existing(inventory, request, region, ours[0])
    return plan_new(inventory, request, region)


def plan_new(inventory: Inventory, request: ProvisionRequest, region: Region) -> ProvisionPlan:
    """Free capacity becomes a namespace."""
    found = [
        *refusals.of_label(inventory, request),
        *refusals.of_region(inventory, region, region.target_node),
        *health.of_modules(region),
    ]
    extents = capacity.free_extents(region)
    found += refusals.of_layout(region, extents)
    align = math.lcm(region.align, NAMESPACE_ALIGNMENT)
    slice_ = capacity.choose_slice(extents, request.size, inventory.block_size, align)
    if slice_ is None:
        if not any(r.kind in ("not-settled", "misaligned") for r in found):
            found.append(refusals.no_room(inventory, request, region, extents))
        return ProvisionPlan(
            request, Verdict.REFUSED, region.name, target_node=region.target_node, refusals=tuple(found)
        )
    numbers = numbers_of(inventory, slice_.namespace, slice_.memory, slice_.memory.size)
    found += refusals.of_dram(
        inventory, slice_.memory.size, numbers.page_structures, force_ratio=request.force_ratio
    )
    size, label = slice_.namespace.size, label_of(request)
    first = Step(
        Action.CREATE_NAMESPACE,
        (_create_command(request, ("-r", region.name, "-s", str(size))),),
        f"make a devdax namespace of {format_size(size)} out of the free capacity of {region.name}, labelled"
        f" {label}",
    )
    if region.half_made and any(name == request.name for name, _ in inventory.unfinished):
        # A namespace with a UUID and no size can be neither made anew nor removed (ndctl: set_uuid failed,
        # Device or resource busy). With its size, it can be finished.
        half_made = f"bus/nd/devices/{region.half_made[0]}"
        first = Step(
            Action.SIZE_NAMESPACE,
            (Setting(f"{half_made}/alt_name", label), Setting(f"{half_made}/size", str(size))),
            f"give {region.half_made[0]}, which tierd began and did not finish, its label and"
            f" {format_size(size)}",
        )
    return ProvisionPlan(
        request,
        Verdict.REFUSED if found else Verdict.READY,
        region.name,
        None,
        region.target_node,
        (first, _system_ram(inventory, NEW_DEVICE, region.target_node, numbers)),
        numbers,
        tuple(found),
        (*_size_notes(request, slice_.memory.size, inventory.block_size), *health.notes(region)),
    )


def plan_existing(
    inventory: Inventory, request: ProvisionRequest, region: Region, namespace: Namespace
) -> ProvisionPlan:
    """The request's namespace is there: what remains."""
    dax = namespace.dax
    target = target_of(region, namespace)
    memory = memory_of(namespace, inventory.block_size)
    wanted = range(memory.start // inventory.block_size, memory.end // inventory.block_size)
    present = {b.number: b for b in dax.blocks} if dax is not None else {}
    still_to_add = sum(inventory.block_size for number in wanted if number not in present)
    numbers = numbers_of(inventory, namespace.span or memory, memory, still_to_add)
    notes = list(health.notes(region))

    def result(
        verdict: Verdict, steps: tuple[Step, ...] = (), refused: tuple[Refusal, ...] = ()
    ) -> ProvisionPlan:
        return ProvisionPlan(
            request, verdict, region.name, namespace, target, steps, numbers, refused, tuple(notes)
        )

    whole = bool(wanted) and all(number in present and present[number].movable for number in wanted)
    if namespace.mode == "devdax" and dax is not None and dax.system_ram and whole:
        if region.bad_blocks:
            notes.append(
                f"{region.name} reports {region.bad_blocks} ranges with media errors, and is in use as"
                " memory"
            )
        notes += health.failing(region)
        notes += [refusal.words for refusal in refusals.of_claim(namespace)]
        if tier := same_tier(inventory.nodes, target):
            notes.append(f"node {target} is in {tier} together with DRAM: the kernel and tierd see one tier")
        return result(Verdict.DONE)

    offline = [number for number in wanted if number in present and not present[number].online]
    others = all(number in present and (present[number].movable or number in offline) for number in wanted)
    if dax is not None and dax.system_ram and others and namespace.uuid in inventory.whole:
        notes.append(left_offline(dax, len(offline)))
        return result(Verdict.DONE)

    found = refusals.of_region(inventory, region, target)
    found += health.of_modules(region)
    found += refusals.of_namespace(inventory, request, namespace)
    found += refusals.of_claim(namespace)
    if dax is not None:
        found += refusals.of_blocks(dax, wanted, frozenset(present))
    if not wanted:
        size = format_size(inventory.block_size)
        found.append(Refusal("too-small", f"{namespace.name} holds no whole memory block of {size}"))
    found += refusals.of_dram(
        inventory, still_to_add, numbers.page_structures, force_ratio=request.force_ratio
    )

    steps: tuple[Step, ...]
    if refusals.unfinished(inventory, request, namespace):
        finish = Step(
            Action.FINISH_NAMESPACE,
            (_create_command(request, ("-e", namespace.name, "-f")),),
            f"make {namespace.name}, which tierd began and did not finish, a devdax namespace",
            f"nothing of {namespace.name} can be read back, which nobody has written yet",
        )
        steps = (finish, _system_ram(inventory, NEW_DEVICE, target, numbers))
    elif dax is None:
        steps = ()
    elif not dax.system_ram:
        steps = (_system_ram(inventory, dax.name, target, numbers),)
    else:
        steps = (
            Step(
                Action.ONLINE_BLOCKS,
                tuple(
                    Setting(f"devices/system/memory/memory{number}/state", MEMORY_POLICY)
                    for number in offline
                ),
                f"bring {len(offline)} memory blocks of {dax.name} online in ZONE_MOVABLE",
            ),
        )
    return result(Verdict.REFUSED if found else Verdict.READY, steps, tuple(found))


def _create_command(request: ProvisionRequest, where: tuple[str, ...]) -> Command:
    # --map=mem: the other kind reserves 1.6 % of the namespace for page structures that kmem does not put
    # there.
    how = ("-m", "devdax", "-M", "mem", "-a", "2M", "-n", label_of(request), "--no-autolabel")
    return Command(("ndctl", "create-namespace", *where, *how))


def _system_ram(inventory: Inventory, device: str, node: int | None, numbers: Numbers) -> Step:
    """devdax to system-ram. The kernel itself brings the blocks online, in the zone that the policy of that
    moment says; daxctl refuses every policy but ``offline`` without -f, and leaves the blocks alone with
    -N."""
    acts: list[Command | Setting] = [
        Command(("daxctl", "reconfigure-device", "-m", "system-ram", "-N", "-f", device))
    ]
    if inventory.online_policy != MEMORY_POLICY:
        acts.insert(0, Setting(ONLINE_POLICY, MEMORY_POLICY))
        acts.append(Setting(ONLINE_POLICY, inventory.online_policy))
    of_node = "" if node is None else f" of node {node}"
    new = device == NEW_DEVICE
    what = "the namespace" if new else device
    left = ", also what was left there by namespaces that are gone" if new else ""
    return Step(
        Action.SYSTEM_RAM,
        tuple(acts),
        f"turn {what} into {format_size(numbers.memory)} of memory{of_node}, {numbers.blocks} blocks in"
        " ZONE_MOVABLE",
        f"nothing of the {format_size(numbers.namespace)} of {what} can be read back{left}",
    )


def memory_of(namespace: Namespace, block_size: int) -> Span:
    """What of a namespace is, or would be, memory: its whole blocks."""
    if namespace.dax is not None:
        return capacity.whole_blocks(namespace.dax.span, block_size)
    if namespace.span is not None:
        return capacity.memory_of_namespace(namespace.span, block_size)
    return Span(0, 0)


def target_of(region: Region, namespace: Namespace) -> int | None:
    """The node that the namespace's memory is in, or would join."""
    dax = namespace.dax
    return dax.target_node if dax is not None and dax.target_node is not None else region.target_node


def numbers_of(inventory: Inventory, namespace: Span, memory: Span, to_add: int) -> Numbers:
    """The numbers of a namespace of which `to_add` bytes of memory are still to come."""
    return Numbers(
        namespace=namespace.size,
        memory=memory.size,
        blocks=memory.size // inventory.block_size,
        lost=namespace.size - memory.size,
        page_structures=capacity.page_structures(to_add),
    )


def left_offline(device: DaxDevice, count: int) -> str:
    """What is said of `count` memory blocks that tierd had brought online, and somebody took offline."""
    return (
        f"{plural(count, 'block')} of {device.name} taken offline by somebody else, and left so:"
        f" `daxctl online-memory {device.name}` brings them back"
    )


def _size_notes(request: ProvisionRequest, memory: int, block_size: int) -> tuple[str, ...]:
    if request.size is None or memory >= capacity.round_up(request.size, block_size):
        return ()
    return (
        f"{format_size(request.size)} is asked for; the free capacity gives {format_size(memory)} in whole"
        f" blocks of {format_size(block_size)}",
    )
