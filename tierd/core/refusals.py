"""Why a request for memory may not be carried out: every reason found, not the first. Pure.

Called by core/provision.py; each function returns the refusals of one concern, or none.
"""

from __future__ import annotations

from dataclasses import dataclass

from tierd.core import capacity, room
from tierd.core.inventory import DaxDevice, Inventory, MemoryNode, Namespace, Region, Span
from tierd.core.kinds_of_device import DaxKind, label_less_words
from tierd.core.policy import ProvisionRequest
from tierd.core.units import format_size

LABEL_PREFIX = "tierd:"
LONGEST_LABEL = 63
"""Bytes of a namespace's label name (NSLABEL_NAME_LEN less the final zero)."""

LARGEST_RATIO = 8
"""Bytes of slow memory for each byte of DRAM. Memory that only holds movable pages needs kernel memory
elsewhere for its page tables and caches (Documentation/admin-guide/mm/memory-hotplug.rst: 3:1 or 4:1 is
fine, 63:1 is not)."""

DRAINED = "drained"
"""The kind of refusal that an operator has asked for, and that is no failure."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing is run. `kind` is a fixed word for programs, `words` one sentence for people."""

    kind: str
    words: str


def unfinished(inventory: Inventory, request: ProvisionRequest, namespace: Namespace) -> bool:
    """Whether the namespace is one that a run of tierd was killed over: labelled as ours, begun in our own
    record with this very size, and not yet what was to be made of it."""
    incomplete = namespace.mode == "raw" or (namespace.mode == "devdax" and not namespace.enabled)
    size = 0 if namespace.span is None else namespace.span.size
    return incomplete and (request.name, size) in inventory.unfinished


def label_of(request: ProvisionRequest) -> str:
    """The name that is written into the label of the request's namespace: how tierd knows its own again."""
    return LABEL_PREFIX + request.name


def same_tier(nodes: tuple[MemoryNode, ...], target_node: int | None) -> str | None:
    """The memory tier that `target_node` shares with DRAM, None when it shares none or is not online.

    Which tier an absent node will be in only the kernel knows, so this is asked before, and again
    afterwards.
    """
    mine = next((n.tier for n in nodes if n.number == target_node), None)
    return mine if mine is not None and any(n.dram and n.tier == mine for n in nodes) else None


def region_not_found(inventory: Inventory, request: ProvisionRequest) -> Refusal:
    """No region has the iset_id: which ones exist."""
    known = [f"0x{r.iset_id:x} ({r.name})" for r in inventory.regions if r.iset_id is not None]
    nameless = [r.name for r in inventory.regions if r.iset_id is None]
    words = f"no region has iset_id 0x{request.iset_id:x}"
    if known:
        words += f"; there is {', '.join(known)}"
    elif not nameless:
        words += "; there is no region of persistent memory at all"
    if nameless:
        words += f"; {', '.join(nameless)} has no labels and so no iset_id (ndctl-init-labels(1))"
    return Refusal("region-not-found", words)


def of_label(inventory: Inventory, request: ProvisionRequest) -> list[Refusal]:
    """Whether the label can be written, and is nowhere else."""
    refusals = []
    label = label_of(request)
    if len(label.encode()) > LONGEST_LABEL:
        most = LONGEST_LABEL - len(LABEL_PREFIX)
        refusals.append(Refusal("name-too-long", f"the name {request.name} is longer than {most} bytes"))
    for region in inventory.regions:
        if region.iset_id != request.iset_id and any(n.label == label for n in region.namespaces):
            words = (
                f"a namespace labelled {label} is in {region.name}, which is another region than the policy"
                " says"
            )
            refusals.append(Refusal("label-elsewhere", words))
    return refusals


def of_region(inventory: Inventory, region: Region, target: int | None) -> list[Refusal]:
    """What is wrong with the region itself and with the node that its memory would join."""
    found: list[Refusal] = []

    def refuse(kind: str, words: str) -> None:
        found.append(Refusal(kind, words))

    if region.iset_id in inventory.drained:
        found.append(drained(region))
    if not region.labelled:
        refuse("label-less", label_less_words(region))
    if not region.enabled:
        refuse(
            "region-disabled", f"{region.name} is disabled; `ndctl enable-region {region.name}` enables it"
        )
    if region.read_only:
        refuse("read-only", f"{region.name} is read-only")
    if region.locked:
        refuse("locked", f"{', '.join(region.locked)} in {region.name} is security-locked")
    if region.bad_blocks:
        refuse(
            "badblocks",
            f"{region.name} has {region.bad_blocks} ranges with media errors; as memory they would kill who"
            " reads them (`ndctl list -RM` shows them, `ndctl clear-errors` clears them)",
        )
    if target is None:
        refuse(
            "target-node",
            f"{region.name} has no target_node: the firmware gives its memory no node of its own",
        )
        return found
    node = next((n for n in inventory.nodes if n.number == target), None)
    if node is not None and node.dram:
        refuse(
            "target-node",
            f"{region.name} would join node {target}, which is DRAM: there would be one tier only",
        )
    elif tier := same_tier(inventory.nodes, target):
        refuse(
            "one-tier",
            f"node {target} is in {tier} together with DRAM: nothing could be promoted or demoted",
        )
    return found


def of_layout(region: Region, extents: tuple[Span, ...]) -> list[Refusal]:
    """Whether the region is aligned, and its free extents are what the kernel counts as free."""
    span = region.span
    if span is None:
        return [Refusal("not-settled", f"{region.name} does not say where it lies")]
    if span.start % region.align or span.size % region.align:
        words = (
            f"{region.name} is misaligned: its start 0x{span.start:x} and size 0x{span.size:x} are to be"
            f" multiples of its align, {format_size(region.align)}"
        )
        return [Refusal("misaligned", words)]
    seen = sum(extent.size for extent in extents)
    if seen != region.available or any(n.span is None for n in region.namespaces):
        words = (
            f"the kernel counts {format_size(region.available)} free in {region.name}, its namespaces leave"
            f" {format_size(seen)}: one of them has not appeared, or is being changed"
        )
        return [Refusal("not-settled", words)]
    return []


def no_room(
    inventory: Inventory, request: ProvisionRequest, region: Region, extents: tuple[Span, ...]
) -> Refusal:
    """No free extent holds what is asked for."""
    longest = max((extent.size for extent in extents), default=0)
    asked = "all" if request.size is None else format_size(request.size)
    words = (
        f"not enough free capacity in {region.name}: {asked} is asked for, {format_size(longest)} is free"
        " in one piece"
    )
    if longest and (request.size is None or request.size <= longest):
        words += capacity.why_unfit(extents, request.size, inventory.block_size, region.align)
    return Refusal("capacity", words)


def of_dram(
    inventory: Inventory, to_add: int, page_structures: int, *, force_ratio: bool = False
) -> list[Refusal]:
    """Whether DRAM can carry `to_add` more bytes of slow memory. force_ratio: whether the policy says that
    the ratio does not matter."""
    if not to_add:
        return []
    found = []
    dram = sum(n.total for n in inventory.nodes if n.dram)
    available = sum(n.available for n in inventory.nodes if n.dram)
    slow = sum(n.total for n in inventory.nodes if not n.dram)
    kept = room.kept(dram)
    if available < page_structures + kept:
        most = capacity.carried(available - kept, inventory.block_size)
        less = (
            f"ask for {format_size(most)} or less, or"
            if most
            else "not even one memory block can be had, so"
        )
        words = (
            f"too little DRAM: the page structures of {format_size(to_add)} take {_about(page_structures)}"
            f" and {_about(kept)} are to stay, {_about(available)} are available; {less} stop what takes"
            " DRAM"
        )
        found.append(Refusal("dram", words))
    if slow + to_add > LARGEST_RATIO * dram and not force_ratio:
        most = max(0, capacity.round_down(LARGEST_RATIO * dram - slow, inventory.block_size))
        found.append(
            Refusal(
                "ratio",
                f"{format_size(to_add)} more would make {_about(slow + to_add)} of slow memory behind"
                f" {_about(dram)} of DRAM, above {LARGEST_RATIO}:1; at most {format_size(most)} more is"
                " reasonable, and `force: ratio` in the request has all of it",
            )
        )
    return found


def of_blocks(dax: DaxDevice, wanted: range, present: frozenset[int]) -> list[Refusal]:
    """What is wrong with the memory blocks: `wanted` are to be there, `present` are."""
    found = []
    if not dax.system_ram:
        online = sum(block.online for block in dax.blocks)
        if online:
            words = (
                f"{online} memory blocks of {dax.name} are in use although it is in devdax mode; a reboot"
                " frees them"
            )
            found.append(Refusal("stuck", words))
        return found
    missing = [number for number in wanted if number not in present]
    if missing:
        words = (
            f"the kernel took only {len(wanted) - len(missing)} of {len(wanted)} memory blocks of {dax.name}"
        )
        found.append(
            Refusal(
                "missing-blocks", f"{words}; `daxctl reconfigure-device -m devdax -f {dax.name}` starts over"
            )
        )
    fixed = [b for b in dax.blocks if b.online and not b.movable]
    if fixed:
        zones = "/".join(sorted({b.zone or "an unknown zone" for b in fixed}))
        words = (
            f"{len(fixed)} memory blocks of {dax.name} are online in {zones}, not Movable, and could not"
            " leave again"
        )
        found.append(
            Refusal(
                "zone", f"{words}; `daxctl offline-memory {dax.name}` frees them while they are not in use"
            )
        )
    return found


def _about(size: int) -> str:
    """`size` in whole MiB, rounded up."""
    return format_size(capacity.round_up(size, 1 << 20))


def of_namespace(inventory: Inventory, request: ProvisionRequest, namespace: Namespace) -> list[Refusal]:
    """What stops the request's own namespace from becoming memory."""
    if unfinished(inventory, request, namespace):
        return []
    name = f"{namespace.name}, labelled {namespace.label},"
    known = [uuid for made_for, uuid in inventory.made if made_for == request.name]
    if known and namespace.uuid not in known:
        # a reconfiguration keeps the label and changes the UUID
        return [
            Refusal(
                "uuid",
                f"{name} has UUID {namespace.uuid}, and tierd made {known[0]}: somebody has made it anew"
                " since",
            )
        ]
    if namespace.mode != "devdax":
        return [
            Refusal("mode", f"{name} is in mode {namespace.mode}, not devdax: somebody else made that of it")
        ]
    if not namespace.enabled:
        return [
            Refusal("disabled", f"{name} is disabled; `ndctl enable-namespace {namespace.name}` enables it")
        ]
    if namespace.dax is None:
        return [
            Refusal(
                "no-device", f"{name} has no dax device: are the modules dax_pmem and device_dax loaded?"
            )
        ]
    return []


def of_claim(namespace: Namespace) -> list[Refusal]:
    """Whether daxctl is told to change the namespace at boot as well."""
    if not namespace.claimed:
        return []
    words = (
        f"{namespace.claimed}, has daxctl reconfigure {namespace.name} at boot too, and one alone may: take"
        " it out of there, or out of the policy"
    )
    return [Refusal("claimed", words)]


def of_release(
    inventory: Inventory, request: ProvisionRequest, region: Region, namespace: Namespace
) -> list[Refusal]:
    """What stops a namespace from being given back: it must be tierd's own, by label and by record."""
    found: list[Refusal] = []

    def refuse(kind: str, words: str) -> None:
        found.append(Refusal(kind, words))

    if region.read_only:
        refuse("read-only", f"{region.name} is read-only")
    if region.locked:
        refuse("locked", f"{', '.join(region.locked)} in {region.name} is security-locked")
    if not region.enabled:
        refuse(
            "region-disabled", f"{region.name} is disabled; `ndctl enable-region {region.name}` enables it"
        )
    name = f"{namespace.name}, labelled {namespace.label},"
    if (request.name, namespace.label_uuid) in inventory.condemned or unfinished(
        inventory, request, namespace
    ):
        return found
    size = 0 if namespace.span is None else namespace.span.size
    # the second: it was made by a run that was killed before it could note the UUID
    if (request.name, namespace.uuid) not in inventory.made and (
        request.name,
        size,
    ) not in inventory.unfinished:
        refuse(
            "not-ours",
            f"{name} has UUID {namespace.uuid}, which tierd's record does not name: it is not given back;"
            f" `ndctl destroy-namespace -f {namespace.name}` does, when you know what it holds",
        )
    if namespace.mode != "devdax" or not namespace.enabled or namespace.dax is None:
        state = "" if namespace.enabled else ", disabled"
        refuse(
            "mode", f"{name} is in mode {namespace.mode}{state}, and tierd left it as devdax with a device"
        )
        return found
    dax = namespace.dax
    return found + of_leaving(dax)


def of_leaving(dax: DaxDevice) -> list[Refusal]:
    """What stops the memory of a device from leaving the kernel."""
    if not dax.system_ram and any(block.online for block in dax.blocks):
        return of_blocks(dax, range(0), frozenset())
    fixed = [b for b in dax.blocks if b.online and not b.movable]
    if not (dax.system_ram and fixed):
        return []
    words = (
        f"{len(fixed)} memory blocks of {dax.name} are online outside ZONE_MOVABLE: they may hold memory of"
        " the kernel, which cannot leave"
    )
    return [Refusal("zone", words)]


def of_room(inventory: Inventory, target: int | None, leaving: int) -> list[Refusal]:
    """Whether what is in use on node `target` has a place when `leaving` bytes of it go.

    What of the node is in use, and does not fit into what of it stays, must fit into what other nodes have
    available beyond what DRAM is to keep, with a tenth to spare.
    """
    moving = room.moving(inventory, target, leaving)
    there = room.others_to_give(inventory, target)
    if room.needed(moving) <= there:
        return []
    return [
        Refusal(
            "room",
            f"{_about(moving)} that is in use on node {target} would have no place: other nodes have"
            f" {_about(there)} to give, and a tenth more than is moved is asked for",
        )
    ]


def drained(region: Region) -> Refusal:
    """An operator has drained the region."""
    return Refusal(
        DRAINED,
        f"{region.name} is drained, and stays so; `tierctl drain --undo {region.name}` lets it be memory"
        " again",
    )


def not_ours(namespace: Namespace) -> Refusal:
    """A namespace that tierd did not make."""
    return Refusal(
        "not-ours",
        f"tierd did not make {namespace.name}, and leaves it alone while no policy names its UUID, with"
        " consent to destroy what it holds",
    )


def without_region(device: str, kind: DaxKind) -> Refusal:
    """A dax device that no namespace has, and that is no memory yet: soft-reserved memory, or CXL."""
    what = "" if kind is DaxKind.UNKNOWN else f"{kind}, "
    return Refusal(
        "no-region",
        f"{device} is {what}in no region of persistent memory, and somebody may use it as it is; `daxctl"
        f" reconfigure-device -m system-ram {device}` makes it memory, which tierd then places on",
    )
