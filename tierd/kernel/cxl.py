"""CXL memory devices and regions, from sysfs (Documentation/ABI/testing/sysfs-bus-cxl)."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from tierd.core.cxl_machine import CxlMachine, CxlMemdev, CxlRegion, CxlWindow
from tierd.core.inventory import DaxDevice, Inventory
from tierd.core.text import in_order
from tierd.errors import DeniedError, GoneError, MalformedError, UnsupportedError
from tierd.kernel.dax import read_device
from tierd.kernel.files import named_errors, read_int, read_text
from tierd.kernel.intents import Intents
from tierd.kernel.inventory import read_nodes
from tierd.kernel.memory_blocks import read_block_size, read_online_policy
from tierd.kernel.paths import Root
from tierd.kernel.tools import Tools

_MEMDEV = re.compile(r"mem[0-9]+")
_REGION = re.compile(r"region[0-9]+")
_ENDPOINT = re.compile(r"endpoint[0-9]+")
_ROOT = re.compile(r"root[0-9]+")
_DECODER = re.compile(r"decoder[0-9]+\.[0-9]+")


def take_cxl(
    root: Root, tools: Tools, record: Intents | None, denied: list[Path] | None = None
) -> CxlMachine:
    """Look at everything, and at what `record` says tierd made. Called before each plan and after each step.

    denied: files that only root may read are added here, and what they say is left out; without it they are
    a DeniedError, and nothing may be done upon what was seen with it. Raises GoneError without memory
    hotplug, DeniedError (physical addresses are shown to root only), MalformedError.
    """
    block_size = read_block_size(root)
    try:
        tools.path("cxl")
        tool = True
    except UnsupportedError:
        tool = False
    whole = frozenset() if record is None else record.whole()
    inventory = Inventory((), read_nodes(root), block_size, read_online_policy(root), whole=whole)
    return CxlMachine(
        inventory=inventory,
        memdevs=read_memdevs(root),
        regions=read_regions(root, block_size, denied),
        windows=_read_windows(root),
        tool=tool,
        made=frozenset() if record is None else record.cxl_made(),
    )


def read_memdevs(root: Root) -> tuple[CxlMemdev, ...]:
    """The memory devices, by name. Everybody may read them. Raises MalformedError."""
    used, owners = _used(root), set(_owners(root).values())
    bridges = {path: bridge for found in _bridges(root).values() for path, bridge in found.items()}
    memdevs = []
    for directory in _devices(root, _MEMDEV):
        with contextlib.suppress(GoneError):
            volatile = _hexadecimal(directory / "ram/size") or 0
            memdevs.append(
                CxlMemdev(
                    name=directory.name,
                    serial=_hexadecimal(directory / "serial") or None,
                    volatile=volatile,
                    persistent=_hexadecimal(directory / "pmem/size") or 0,
                    free=max(0, volatile - used.get(directory.name, 0)),
                    settled=directory.name in owners,
                    bridge=next((bridges[p] for p in directory.resolve().parents if p in bridges), ""),
                )
            )
    return tuple(memdevs)


def read_regions(
    root: Root, block_size: int | None, denied: list[Path] | None = None
) -> tuple[CxlRegion, ...]:
    """The regions, by name. block_size: bytes of a memory block; without it, dax devices are named only.

    denied: files that only root may read are added here, and what they say is left out; without it they are
    a DeniedError. Raises MalformedError.
    """
    owners = _owners(root)
    regions = []
    for directory in _devices(root, _REGION):
        with contextlib.suppress(GoneError):
            ways = read_int(directory / "interleave_ways")
            targets = [_text(directory / f"target{position}") for position in range(ways)]
            names = tuple(sorted((path.name for path in directory.glob("dax_region*/dax*.*")), key=in_order))
            regions.append(
                CxlRegion(
                    name=directory.name,
                    mode=_text(directory / "mode"),
                    size=_hexadecimal(directory / "size") or 0,
                    ways=ways,
                    memdevs=tuple(owners[target] for target in targets if target in owners),
                    committed=_text(directory / "commit") == "1",
                    enabled=(directory / "driver").is_symlink(),
                    window=directory.resolve().parent.name,
                    devices=names,
                    dax=_device(root, names, block_size, denied),
                    identity=_identity(directory),
                )
            )
    return tuple(regions)


def _identity(directory: Path) -> str:
    """The name, and the number of the directory in sysfs, which the kernel gives once in a boot
    (fs/kernfs/dir.c, __kernfs_new_node): names come again, and a volatile region's `uuid` is empty. Raises
    GoneError, DeniedError, MalformedError."""
    with named_errors(directory):
        return f"{directory.name}:{directory.stat().st_ino}"


def _device(
    root: Root, names: tuple[str, ...], block_size: int | None, denied: list[Path] | None
) -> DaxDevice | None:
    if not names or block_size is None:
        return None
    try:
        return read_device(root, names[0], block_size)
    except GoneError:
        return None
    except DeniedError:
        if denied is None:
            raise
        path = root.dax_devices / names[0] / "resource"
        if path not in denied:
            denied.append(path)
        return None


def _read_windows(root: Root) -> tuple[CxlWindow, ...]:
    """The root decoders, by name."""
    bridges = _bridges(root)
    windows = []
    for directory in _devices(root, _DECODER):
        parent = directory.resolve().parent.name
        if not _ROOT.fullmatch(parent):
            continue
        targets = _text(directory / "target_list").split(",")
        held = (_hexadecimal(path / "size") or 0 for path in directory.glob("region[0-9]*"))
        windows.append(
            CxlWindow(
                name=directory.name,
                bridges=frozenset(targets) & frozenset(bridges.get(parent, {}).values()),
                # 6.1 makes regions of persistent memory only
                volatile=_text(directory / "cap_ram") == "1" and (directory / "create_ram_region").exists(),
                free=max(0, (_hexadecimal(directory / "size") or 0) - sum(held)),
            )
        )
    return tuple(windows)


def _bridges(root: Root) -> dict[str, dict[Path, str]]:
    """Of each root port, the host bridges below it: where their devices are, and the number that a decoder's
    `target_list` has for them."""
    found: dict[str, dict[Path, str]] = {}
    for port in _devices(root, _ROOT):
        links = [path for path in port.glob("dport*") if path.is_symlink()]
        found[port.name] = {path.resolve(): path.name.removeprefix("dport") for path in links}
    return found


def _used(root: Root) -> dict[str, int]:
    """Bytes of volatile capacity that regions have, by memory device."""
    used: dict[str, int] = {}
    owners = _owners(root)
    for name, memdev in owners.items():
        directory = root.cxl_devices / name
        with contextlib.suppress(GoneError):
            if _text(directory / "mode") == "ram":
                used[memdev] = used.get(memdev, 0) + (_hexadecimal(directory / "dpa_size") or 0)
    return used


def _owners(root: Root) -> dict[str, str]:
    """The memory device of each endpoint decoder, by the decoder's name."""
    owners: dict[str, str] = {}
    for endpoint in _devices(root, _ENDPOINT):
        memdev = (endpoint / "uport").resolve().name
        if _MEMDEV.fullmatch(memdev):
            owners |= dict.fromkeys((path.name for path in endpoint.glob("decoder*.*")), memdev)
    return owners


def _devices(root: Root, name: re.Pattern[str]) -> list[Path]:
    try:
        found = [path for path in root.cxl_devices.iterdir() if name.fullmatch(path.name)]
    except OSError:
        return []  # a kernel, or a machine, without CXL
    return sorted(found, key=lambda path: in_order(path.name))


def _hexadecimal(path: Path) -> int | None:
    """The number in a file that may be absent. Raises DeniedError, MalformedError."""
    try:
        return read_int(path, 16)
    except GoneError:
        return None


def _text(path: Path) -> str:
    """What is in a file that may be absent, or that the kernel answers with an error while a region is being
    made: then nothing."""
    try:
        return read_text(path).strip()
    except (GoneError, MalformedError):
        return ""
