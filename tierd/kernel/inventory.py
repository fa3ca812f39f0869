"""The machine as provisioning sees it: who is who from ndctl, everything that can be measured from sysfs."""

from __future__ import annotations

import contextlib
import errno
import re
from pathlib import Path

from tierd.core.inventory import Inventory, MemoryNode, Namespace, Region, Span, Taken
from tierd.core.model import TierKind
from tierd.errors import DeniedError, GoneError, MalformedError
from tierd.kernel import ndctl
from tierd.kernel.dax import read_device
from tierd.kernel.daxctl_config import read_claims
from tierd.kernel.drained import read_drained
from tierd.kernel.files import read_int, read_text
from tierd.kernel.intents import Intents
from tierd.kernel.memory_blocks import read_block_size, read_online_policy
from tierd.kernel.paths import Root
from tierd.kernel.tools import Tools
from tierd.kernel.topology import read_topology

LABELLED = 5
"""`nstype` of a region whose namespaces are described by labels (ND_DEVICE_NAMESPACE_PMEM,
linux/ndctl.h)."""

_MEMINFO = re.compile(
    r"^Node \d+ (MemFree|Active\(file\)|Inactive\(file\)|SReclaimable):\s+(\d+) kB$", re.MULTILINE
)


def take_inventory(root: Root, tools: Tools, record: Intents) -> Inventory:
    """Look at everything, and at what `record` says was begun. Called before each plan and after each step.
    Inventory.

    Raises UnsupportedError without ndctl or memory hotplug, ToolError, DeniedError (physical addresses are
    shown to root only), MalformedError.
    """
    return measure(root, ndctl.list_regions(tools), record)


def measure(
    root: Root, listing: ndctl.Listing, record: Intents, denied: list[Path] | None = None
) -> Inventory:
    """The same for what ndctl has listed.

    denied: files that only root may read are added here, and what they say is left out; without it they are
    a DeniedError, and nothing may be planned upon an inventory that was taken with it.
    """
    block_size = read_block_size(root)
    regions = []
    claims = read_claims(root, denied)
    for listed in listing.regions:
        with contextlib.suppress(GoneError):  # removed between the two looks
            regions.append(_read_region(root, listed, listing, claims, block_size, denied))
    unfinished: frozenset[tuple[str, int]] = frozenset()
    made: frozenset[tuple[str, str]] = frozenset()
    condemned: frozenset[tuple[str, str]] = frozenset()
    taken: tuple[Taken, ...] = ()
    whole: frozenset[str] = frozenset()
    try:
        unfinished, made, condemned = record.unfinished(), record.made(), record.condemned()
        taken, whole = record.taken(), record.whole()
    except DeniedError:
        if denied is None:
            raise
        denied.append(record.path)
    return Inventory(
        regions=tuple(regions),
        nodes=read_nodes(root),
        block_size=block_size,
        online_policy=read_online_policy(root),
        unfinished=unfinished,
        made=made,
        condemned=condemned,
        taken=taken,
        drained=frozenset(entry.iset_id for entry in read_drained(record.path.parent)),
        whole=whole,
    )


def read_nodes(root: Root) -> tuple[MemoryNode, ...]:
    """The nodes that have memory, with what could be had of it. Raises MalformedError."""
    nodes = []
    for tier in read_topology(root).tiers:
        for node in tier.nodes:
            with contextlib.suppress(GoneError):
                found = {
                    k: int(v) << 10
                    for k, v in _MEMINFO.findall(read_text(root.nodes / f"node{node.number}/meminfo"))
                }
                cache = (
                    found.get("Active(file)", 0)
                    + found.get("Inactive(file)", 0)
                    + found.get("SReclaimable", 0)
                )
                nodes.append(
                    MemoryNode(
                        number=node.number,
                        total=node.total,
                        # as the kernel's own MemAvailable: half of what could be dropped is needed
                        available=found.get("MemFree", 0) + cache // 2,
                        has_cpus=node.has_cpus,
                        kernel_memory=not node.movable_only,
                        tier=tier.name if tier.name.startswith("memory_tier") else None,
                        slow=tier.kind is TierKind.SLOW,
                    )
                )
    return tuple(sorted(nodes, key=lambda node: node.number))


def _read_region(
    root: Root,
    listed: ndctl.ListedRegion,
    listing: ndctl.Listing,
    claims: dict[str, str],
    block_size: int,
    denied: list[Path] | None,
) -> Region:
    directory = root.nd_devices / listed.name
    dimms = _dimms(root, listed.name)
    namespaces = (_read_namespace(root, n, claims, block_size, denied) for n in listed.namespaces)
    return Region(
        name=listed.name,
        iset_id=listed.iset_id,
        span=_read_span(root, listed.name, denied),
        align=_optional(root, f"{listed.name}/align", 16) or 1,
        available=_optional(root, f"{listed.name}/available_size") or 0,
        labelled=_optional(root, f"{listed.name}/nstype") == LABELLED,
        enabled=listed.enabled,
        read_only=read_int(directory / "read_only") != 0,
        bad_blocks=_count_bad_blocks(root, listed.name),
        locked=tuple(
            dimm for dimm in listed.dimms if dimm in listing.locked or "lock" in _dimm_flags(root, dimm)
        ),
        target_node=_node(root, f"{listed.name}/target_node"),
        namespaces=tuple(namespace for namespace in namespaces if namespace is not None),
        half_made=tuple(
            n.name for n in listed.namespaces if n.uuid and not _optional(root, f"{n.name}/size")
        ),
        provider=_provider(directory),
        dimms=dimms,
        serials=tuple(_serial(root, dimm) for dimm in dimms),
        modules=tuple(dimm for dimm in listing.dimms if dimm.name in listed.dimms),
    )


def _read_namespace(
    root: Root,
    listed: ndctl.ListedNamespace,
    claims: dict[str, str],
    block_size: int,
    denied: list[Path] | None,
) -> Namespace | None:
    """None for an idle one: each region keeps one without size, for the next that is made."""
    _require_as_listed(root, listed)
    if not _optional(root, f"{listed.name}/size"):
        return None
    span = _read_span(root, listed.name, denied)
    dax = None
    if listed.chardevs:
        try:
            dax = read_device(root, listed.chardevs[0], block_size)
        except GoneError:
            pass
        except DeniedError:
            if denied is None:
                raise
            denied.append(root.dax_devices / listed.chardevs[0] / "resource")
    if (
        dax is not None
        and span is not None
        and not (span.start <= dax.span.start and dax.span.end <= span.end)
    ):
        raise MalformedError(
            f"ndctl names {dax.name} as the device of {listed.name}, and it lies elsewhere: nothing is done"
            " upon that"
        )
    return Namespace(
        name=listed.name,
        uuid=listed.uuid,
        label=listed.label,
        mode=listed.mode,
        enabled=listed.enabled,
        span=span,
        dax=dax,
        label_uuid=listed.label_uuid,
        claimed=claims.get((listed.uuid or "").lower(), ""),
    )


def _require_as_listed(root: Root, listed: ndctl.ListedNamespace) -> None:
    """Raises MalformedError where ndctl and the kernel tell a namespace apart by something else: names are
    given anew, and what is done is done to a name."""
    directory = root.nd_devices / listed.name
    if listed.uuid and not directory.exists():
        raise MalformedError(f"ndctl lists {listed.name}, which the kernel does not have")
    # a namespace without a label (nstype 4) has neither file
    for what, said in (("alt_name", listed.label), ("uuid", listed.label_uuid or "")):
        with contextlib.suppress(GoneError):
            found = read_text(directory / what).strip()
            if said and found != said.strip():
                raise MalformedError(
                    f"ndctl says that {what} of {listed.name} is {said[:63]!r}, the kernel {found[:63]!r}"
                )


def _read_span(root: Root, name: str, denied: list[Path] | None) -> Span | None:
    try:
        start = _optional(root, f"{name}/resource", 16)
    except DeniedError:
        if denied is None:
            raise
        denied.append(root.nd_devices / name / "resource")
        return None
    size = _optional(root, f"{name}/size")
    return None if start is None or size is None else Span(start, size)


def _count_bad_blocks(root: Root, name: str) -> int:
    try:
        return len(read_text(root.nd_devices / name / "badblocks").split("\n")) - 1
    except GoneError:
        return 0
    except MalformedError as error:
        # a region without a driver has no list (region_badblocks_show in drivers/nvdimm/region_devs.c)
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENXIO:
            return 0
        raise


def _dimm_flags(root: Root, dimm: str) -> list[str]:
    try:
        return read_text(root.nd_devices / dimm / "flags").split()
    except (GoneError, DeniedError):
        return []


def _dimms(root: Root, region: str) -> tuple[str, ...]:
    """The DIMMs that the region interleaves, by the kernel's word: ``mappingN`` is NAME,START,SIZE,POSITION
    (drivers/nvdimm/region_devs.c)."""
    count = _optional(root, f"{region}/mappings") or 0
    try:
        found = [read_text(root.nd_devices / region / f"mapping{n}").partition(",")[0] for n in range(count)]
    except (GoneError, DeniedError):
        return ()
    return tuple(found)


def _serial(root: Root, dimm: str) -> str:
    """What names a DIMM of the firmware's table for good; empty for others."""
    try:
        return read_text(root.nd_devices / dimm / "nfit/id").strip()
    except (GoneError, DeniedError, MalformedError):
        return ""


def _provider(region: Path) -> str:
    """Of the bus that the region is on, which is the directory above it."""
    try:
        return read_text(region.resolve().parent / "provider").strip()
    except (GoneError, DeniedError, MalformedError):
        return ""


def _node(root: Root, path: str) -> int | None:
    number = _optional(root, path)
    return None if number is None or number < 0 else number


def _optional(root: Root, path: str, base: int = 10) -> int | None:
    """The number in a file that may be absent, or that the kernel answers with ENXIO for an idle device."""
    try:
        return read_int(root.nd_devices / path, base)
    except GoneError:
        return None
    except MalformedError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENXIO:
            return None
        raise
