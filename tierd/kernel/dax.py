"""Dax devices, from sysfs: where their data lies, which driver has them, which memory blocks they have
become."""

from __future__ import annotations

import os

from tierd.core.inventory import DaxDevice, Span
from tierd.errors import GoneError, MalformedError
from tierd.kernel.files import read_int
from tierd.kernel.memory_blocks import read_blocks
from tierd.kernel.paths import Root


def read_device(root: Root, name: str, block_size: int) -> DaxDevice:
    """One device, such as ``dax0.0``. Raises GoneError when it is not there, DeniedError, MalformedError."""
    directory = root.dax_devices / name
    size = read_int(directory / "size")
    start = read_int(directory / "resource", base=16)
    if size <= 0 or start < 0:
        raise MalformedError(f"{directory}: {size} bytes at {start:#x} is no device")
    span = Span(start, size)
    try:
        target: int | None = read_int(directory / "target_node")
    except GoneError:
        target = None
    try:
        driver = os.path.basename(os.readlink(directory / "driver"))
    except OSError:
        driver = ""
    return DaxDevice(
        name=name,
        span=span,
        driver=driver,
        target_node=None if target is None or target < 0 else target,
        blocks=read_blocks(root, span, block_size),
    )
