"""Dax devices, from sysfs: where their data lies, which driver has them, which memory blocks they have
become."""

from __future__ import annotations

import os

from tierd.core.inventory import DaxDevice, Span
from tierd.core.kinds_of_device import DaxKind
from tierd.errors import GoneError, MalformedError
from tierd.kernel.files import read_int
from tierd.kernel.memory_blocks import read_blocks
from tierd.kernel.paths import Root


def list_devices(root: Root) -> tuple[str, ...]:
    """The names of all dax devices, also of those that no namespace has (soft-reserved memory, CXL)."""
    return tuple(sorted(path.name for path in root.dax_devices.glob("dax*")))


def read_size(root: Root, name: str) -> int:
    """Bytes of a device's data. Everybody may read it. Raises GoneError, MalformedError."""
    return read_int(root.dax_devices / name / "size")


def read_driver(root: Root, name: str) -> str:
    """Which driver has the device, empty when none has. Everybody may read it."""
    try:
        return os.path.basename(os.readlink(root.dax_devices / name / "driver"))
    except OSError:
        return ""


def read_kind(root: Root, name: str) -> DaxKind:
    """What the device is made of, by where it is in the tree of devices. Everybody may read it."""
    parent = (root.dax_devices / name).resolve().parent
    if parent.name.startswith("dax_region"):  # drivers/cxl/core/region.c, cxl_dax_region_alloc
        return DaxKind.CXL
    if parent.name.startswith("hmem"):  # drivers/dax/hmem/device.c
        return DaxKind.SOFT_RESERVED
    if any(above.name.startswith("ndbus") for above in parent.parents):
        return DaxKind.PERSISTENT
    return DaxKind.UNKNOWN


def read_target_node(root: Root, name: str) -> int | None:
    """The node that the device's memory would join, None when the firmware names none. Everybody may read
    it. Raises MalformedError."""
    try:
        target = read_int(root.dax_devices / name / "target_node")
    except GoneError:
        return None
    return target if target >= 0 else None


def read_device(root: Root, name: str, block_size: int) -> DaxDevice:
    """One device, such as ``dax0.0``. Raises GoneError when it is not there, DeniedError, MalformedError."""
    directory = root.dax_devices / name
    size = read_size(root, name)
    start = read_int(directory / "resource", base=16)
    if size <= 0 or start < 0:
        raise MalformedError(f"{directory}: {size} bytes at {start:#x} is no device")
    span = Span(start, size)
    return DaxDevice(
        name=name,
        span=span,
        driver=read_driver(root, name),
        target_node=read_target_node(root, name),
        blocks=read_blocks(root, span, block_size),
    )
