"""The machine as one picture, for `tierctl list devices`: what take_inventory sees, and everything around
it, as far as the reader may see it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tierd.core.cxl_machine import CxlMachine
from tierd.core.inventory import DaxDevice, Inventory
from tierd.core.picture import DaxView, Picture
from tierd.core.text import plural
from tierd.errors import DeniedError, GoneError, MalformedError, TierdError, UnsupportedError
from tierd.kernel import cxl, dax, ndctl
from tierd.kernel.files import read_int
from tierd.kernel.intents import Intents
from tierd.kernel.inventory import measure, read_nodes
from tierd.kernel.memory_blocks import read_all_blocks, read_block_size
from tierd.kernel.paths import Root
from tierd.kernel.tools import ToolError, Tools
from tierd.kernel.topology import read_topology
from tierd.kernel.users import read_users

_SHOWN = 3
"""Files that are named when some could not be read; they are alike."""


def take_picture(root: Root, tools: Tools, record: Path) -> Picture:
    """Look at everything. record: tierd's record of conversions. Raises MalformedError when sysfs itself
    cannot be read.

    What is missing (ndctl, memory hotplug, permission) is in the picture as a sentence and hides nothing
    else; so is a failure of ndctl, as a fault.
    """
    denied: list[Path] = []
    unseen: list[str] = []
    faults: list[str] = []
    listed = _list(root, tools, unseen, faults)
    listing = listed or ndctl.Listing((), frozenset())
    inventory = _measure(root, listing, record, denied, unseen, faults)
    namespaces = [n for region in listing.regions for n in region.namespaces]
    holders = {device: n.name for n in namespaces for device in n.chardevs}
    views = []
    for name in dax.list_devices(root):
        with contextlib.suppress(GoneError):
            views.append(_view(root, name, holders.get(name), inventory, denied))
    expanders = _cxl(root, tools, record, denied, faults)
    blind = bool(denied)
    block_devices = {n.name: n.blockdev for n in namespaces if n.blockdev}
    users = read_users(root, block_devices.values(), (view.name for view in views), denied)
    if denied:
        unseen.append(_denied_words(denied))
    topology = read_topology(root)
    return Picture(
        listed=listed is not None,
        dimms=listing.dimms,
        inventory=inventory,
        sizes=_sizes(root, [*(r.name for r in listing.regions), *(n.name for n in namespaces)]),
        block_devices=block_devices,
        dax=tuple(views),
        users=users,
        blocks=read_all_blocks(root),
        nodes=read_nodes(root),
        tiers=topology.tiers,
        blind=blind,
        unseen=tuple(unseen),
        faults=tuple(faults),
        caches=topology.caches,
        cxl=expanders,
    )


def _list(root: Root, tools: Tools, unseen: list[str], faults: list[str]) -> ndctl.Listing | None:
    try:
        return ndctl.list_regions(tools, health=True)
    except UnsupportedError as error:
        there = [
            path.name
            for kind in ("nmem", "region")
            for path in sorted(root.nd_devices.glob(f"{kind}[0-9]*"))
        ]
        words = f"; {', '.join(there)} not shown" if there else ""
        unseen.append(f"{error}, and DIMMs, regions and namespaces are not seen{words} ({error.hint})")
    except (ToolError, MalformedError) as error:
        faults.append(f"DIMMs, regions and namespaces are not shown: {error}")
    return None


def _measure(
    root: Root,
    listing: ndctl.Listing,
    record: Path,
    denied: list[Path],
    unseen: list[str],
    faults: list[str],
) -> Inventory | None:
    try:
        read_block_size(root)
    except GoneError:
        unseen.append(
            "this kernel has no memory hotplug: nothing can become memory while it runs, and regions and"
            " namespaces are not shown"
        )
        return None
    try:
        return measure(root, listing, Intents(record, root), denied)
    except TierdError as error:
        faults.append(f"regions and namespaces are not shown: {error}")
        return None


def _cxl(root: Root, tools: Tools, record: Path, denied: list[Path], faults: list[str]) -> CxlMachine | None:
    """None without CXL. Which regions tierd made is left out: a picture has no need of it."""
    try:
        if not cxl.read_memdevs(root) and not cxl.read_regions(root, None):
            return None
        return cxl.take_cxl(root, tools, None, denied)
    except GoneError:
        return None  # no memory hotplug, which has been said
    except (DeniedError, MalformedError) as error:
        faults.append(f"CXL devices and regions are not shown: {error}")
        return None


def _sizes(root: Root, names: list[str]) -> dict[str, int]:
    found = {}
    for name in names:
        with contextlib.suppress(GoneError, MalformedError):
            found[name] = read_int(root.nd_devices / name / "size")
    return found


def _view(
    root: Root, name: str, namespace: str | None, inventory: Inventory | None, denied: list[Path]
) -> DaxView:
    device: DaxDevice | None = None
    if inventory is not None:
        try:
            device = dax.read_device(root, name, inventory.block_size)
        except DeniedError:
            path = root.dax_devices / name / "resource"
            if path not in denied:
                denied.append(path)
    return DaxView(
        name=name,
        size=dax.read_size(root, name),
        driver=dax.read_driver(root, name),
        target_node=dax.read_target_node(root, name),
        namespace=namespace,
        device=device,
        kind=dax.read_kind(root, name),
    )


def _denied_words(denied: list[Path]) -> str:
    named = ", ".join(str(path) for path in denied[:_SHOWN])
    more = f" and {len(denied) - _SHOWN} more" if len(denied) > _SHOWN else ""
    return (
        f"{plural(len(denied), 'file')} can be read by root only ({named}{more}): without them tierd cannot"
        " say where things lie, who has them open, and what could become memory"
    )
