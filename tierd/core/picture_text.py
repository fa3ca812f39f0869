"""The picture of all devices as a JSON object; the terminal's tables are made of the same. Pure."""

from __future__ import annotations

from typing import Any

from tierd.core import picture as pictures
from tierd.core.cxl_machine import CxlMachine, CxlMemdev, CxlRegion
from tierd.core.inventory import SYSTEM_RAM_DRIVER, Namespace, Region
from tierd.core.kinds_of_device import DaxKind, kind_of_region
from tierd.core.memory_side_cache import cache_words
from tierd.core.picture import DaxView, Picture, Prospect
from tierd.core.provision import Verdict
from tierd.core.text import in_order, plural, sentence, size

UNKNOWN = "unknown"
"""Stands for a verdict where the reader may not see enough to tell."""


def picture_document(picture: Picture) -> dict[str, Any]:
    """The picture as an object of lists, one for each kind of part; sizes are integers, in bytes."""
    regions = picture.inventory.regions if picture.inventory else ()
    namespaces = sorted(
        ((region, n) for region in regions for n in region.namespaces),
        key=lambda pair: in_order(pair[1].name),
    )
    return {
        "dimms": [
            {
                "name": dimm.name,
                "serial": dimm.serial,
                "size": dimm.size,
                "security": dimm.security,
                "flags": list(dimm.flags),
                "health": dimm.health,
                "regions": list(dimm.regions),
            }
            for dimm in picture.dimms
        ],
        "regions": [_region(picture, region) for region in regions],
        "namespaces": [_namespace(picture, region, n) for region, n in namespaces],
        "cxl_memdevs": [_memdev(picture.cxl, m) for m in picture.cxl.memdevs] if picture.cxl else [],
        "cxl_regions": [_cxl_region(picture.cxl, r) for r in picture.cxl.regions] if picture.cxl else [],
        "dax_devices": [_device(picture, v) for v in sorted(picture.dax, key=lambda v: in_order(v.name))],
        "memory_blocks": {
            "block_size": picture.inventory.block_size if picture.inventory else None,
            "online_policy": picture.inventory.online_policy if picture.inventory else None,
            "runs": [
                {
                    "first": run.first,
                    "count": run.count,
                    "online": run.online,
                    "zone": run.zone,
                    "node": run.node,
                    "device": run.device,
                }
                for run in pictures.block_runs(picture)
            ],
        },
        "nodes": [
            {
                "number": node.number,
                "kind": "dram" if node.dram else "slow",
                "total": node.total,
                "available": node.available,
                "has_cpus": node.has_cpus,
                "movable_only": not node.kernel_memory,
                "tier": node.tier,
                "reason": pictures.of_node(picture, node),
                "memory_side_caches": [
                    {
                        "level": cache.level,
                        "size": cache.size,
                        "line": cache.line,
                        "indexing": cache.indexing,
                        "write_policy": cache.write_policy,
                        "words": cache_words(cache),
                    }
                    for cache in picture.caches
                    if cache.node == node.number
                ],
            }
            for node in picture.nodes
        ],
        "tiers": [
            {
                "name": tier.name,
                "kind": tier.kind.value,
                "nodes": [node.number for node in tier.nodes],
                "total": tier.total,
                "free": tier.free,
            }
            for tier in picture.tiers
        ],
        "unseen": list(picture.unseen),
        "faults": list(picture.faults),
    }


def _region(picture: Picture, region: Region) -> dict[str, Any]:
    assert picture.inventory is not None
    prospect = pictures.of_region(picture.inventory, region, blind=picture.blind)
    return {
        "name": region.name,
        "kind": kind_of_region(region).value,
        "iset_id": None if region.iset_id is None else f"0x{region.iset_id:x}",
        "size": picture.sizes.get(region.name),
        "available": region.available,
        "align": region.align,
        "target_node": region.target_node,
        "dimms": [dimm.name for dimm in picture.dimms if region.name in dimm.regions],
        "labelled": region.labelled,
        "enabled": region.enabled,
        "read_only": region.read_only,
        "bad_blocks": region.bad_blocks,
        "locked": list(region.locked),
        "drained": region.iset_id in picture.inventory.drained,
        "could": _prospect(prospect, f"all of its free {size(region.available)}", region.target_node),
    }


def _namespace(picture: Picture, region: Region, namespace: Namespace) -> dict[str, Any]:
    assert picture.inventory is not None
    prospect = pictures.of_namespace(picture.inventory, region, namespace, blind=picture.blind)
    block_device = picture.block_devices.get(namespace.name)
    view = next((view for view in picture.dax if view.namespace == namespace.name), None)
    users = list(picture.users.get(block_device or "", ()))
    if view is not None:
        users += _device_users(picture, view)
    return {
        "name": namespace.name,
        "region": region.name,
        "uuid": namespace.uuid,
        "label": namespace.label,
        "mode": namespace.mode,
        "size": picture.sizes.get(namespace.name),
        "enabled": namespace.enabled,
        "device": block_device or (view.name if view else None),
        "users": users,
        "could": _prospect(prospect, "it", view.target_node if view else region.target_node),
    }


def _memdev(machine: CxlMachine, memdev: CxlMemdev) -> dict[str, Any]:
    prospect = pictures.of_memdev(machine, memdev)
    return {
        "name": memdev.name,
        "serial": None if memdev.serial is None else f"0x{memdev.serial:x}",
        "volatile": memdev.volatile,
        "persistent": memdev.persistent,
        "free": memdev.free,
        "regions": [region.name for region in machine.regions if memdev.name in region.memdevs],
        "could": None if prospect is None else _prospect(prospect, f"all its {size(memdev.free)}", None),
    }


def _cxl_region(machine: CxlMachine, region: CxlRegion) -> dict[str, Any]:
    return {
        "name": region.name,
        "mode": region.mode,
        "size": region.size,
        "ways": region.ways,
        "memdevs": list(region.memdevs),
        "committed": region.committed,
        "enabled": region.enabled,
        "devices": list(region.devices),
        "words": pictures.region_words(machine, region),
    }


def _device(picture: Picture, view: DaxView) -> dict[str, Any]:
    prospect = pictures.of_device(picture, view)
    blocks = None if view.device is None else view.device.blocks
    return {
        "name": view.name,
        "kind": (DaxKind.PERSISTENT if view.namespace is not None else view.kind).value,
        "size": view.size,
        "driver": view.driver,
        "mode": {SYSTEM_RAM_DRIVER: "system-ram", "device_dax": "devdax"}.get(view.driver),
        "target_node": view.target_node,
        "namespace": view.namespace,
        "blocks": None if blocks is None else len(blocks),
        "movable_blocks": None if blocks is None else sum(block.movable for block in blocks),
        "users": _device_users(picture, view),
        "could": None if prospect is None else _prospect(prospect, "it", view.target_node),
    }


def _device_users(picture: Picture, view: DaxView) -> list[str]:
    users = list(picture.users.get(view.name, ()))
    if view.driver == SYSTEM_RAM_DRIVER:
        node = "" if view.target_node is None else f" of node {view.target_node}"
        users.insert(0, f"the kernel, as memory{node}")
    return users


def _prospect(prospect: Prospect, what: str, node: int | None) -> dict[str, Any]:
    return {
        "verdict": UNKNOWN if prospect.verdict is None else prospect.verdict.value,
        "words": _words(prospect, what, node),
        "request": prospect.request,
        "memory": prospect.memory,
        "blocks": prospect.blocks,
        "lost": prospect.lost,
        "page_structures": prospect.page_structures,
        "reasons": [{"kind": reason.kind, "words": reason.words} for reason in prospect.reasons],
    }


def _words(prospect: Prospect, what: str, node: int | None) -> str:
    """What tierd could do, in one sentence without the reasons."""
    made = "" if prospect.request is None else f", made by tierd as {prospect.request}"
    if prospect.verdict is None:
        return f"only root sees whether it could become memory{made}"
    if prospect.verdict is Verdict.REFUSED:
        return f"tierd would not make memory of {what}{made}"
    numbers = ""
    if prospect.memory is not None and prospect.blocks is not None:
        of_node = "" if node is None else f" of node {node}"
        numbers = f"{size(prospect.memory)} in {plural(prospect.blocks, 'block')}{of_node}"
    lost = f"{size(prospect.lost)} lost to alignment" if prospect.lost else ""
    spent = prospect.page_structures
    cost = f"{size(spent)} of DRAM for page structures" if spent else ""
    if prospect.verdict is Verdict.DONE:
        return sentence([f"it is memory already{made}" + (f": {numbers}" if numbers else ""), lost, cost])
    return sentence([f"{what} could become memory{made}: {numbers}", lost, cost])
