"""Devices that the kernel itself has open for somebody: loop devices, and what it serves to other machines.

No process has these open, and the kernel claims nothing of them, so that nothing else shows it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import struct
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from tierd.core.text import clean
from tierd.errors import GoneError, MalformedError
from tierd.kernel.files import named_errors, read_text
from tierd.kernel.paths import Root
from tierd.kernel.syscalls import device_number

_LOOP_GET_STATUS64: Final = 0x4C05
_LOOP_INFO64: Final = 232
_RDEVICE: Final = 16
"""Size of struct loop_info64, and the place of lo_rdevice in it (include/uapi/linux/loop.h)."""
_FILEIO: Final = re.compile(r" File: (.+?)  Size: ")
"""Of fd_show_configfs_dev_params (drivers/target/target_core_file.c)."""


def kernel_openers(
    root: Root, names: Collection[str], numbers: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Each use of the devices `names` within the kernel: the device's name, and by what, in words. numbers:
    their names by ``MAJOR:MINOR``. Raises DeniedError, MalformedError."""
    for loop in _loops(root):
        with contextlib.suppress(GoneError):
            backing = read_text(root.block_devices / loop / "loop/backing_file").strip()
            # a container may call it anything
            name = _named(backing, names) or numbers.get(_loop_backing(root.dev / loop), "")
            if name:
                yield name, f"{loop} is made of it"
    for how, path in _served(root):
        if name := _named(path, names) or numbers.get(_number(path), ""):
            yield name, f"{how} serves it"


def _loops(root: Root) -> list[str]:
    with contextlib.suppress(GoneError), named_errors(root.block_devices):
        return sorted(name for name in os.listdir(root.block_devices) if name.startswith("loop"))
    return []


def _named(path: str, names: Collection[str]) -> str:
    name = os.path.basename(path.removesuffix(" (deleted)"))
    return name if name in names else ""


def _loop_backing(device: Path) -> str:
    """``MAJOR:MINOR`` of the device that a loop device is made of, ``0:0`` of a file, empty when it is not
    in use any more. Raises MalformedError."""
    information = bytearray(_LOOP_INFO64)
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _LOOP_GET_STATUS64, information)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return ""
        raise MalformedError(f"{device}: {error.strerror}") from error
    (number,) = struct.unpack_from("<Q", information, _RDEVICE)
    return f"{os.major(number)}:{os.minor(number)}"


def _served(root: Root) -> Iterator[tuple[str, str]]:
    """By what, and the path, of NVMe over fabrics and of LIO's files; LIO claims block devices as such."""
    for place in sorted(root.config.glob("nvmet/subsystems/*/namespaces/*/device_path")):
        with contextlib.suppress(GoneError):
            yield f"NVMe target {clean(place.parents[2].name, 64)}", read_text(place).strip()
    for place in sorted(root.config.glob("target/core/fileio_*/*/info")):
        with contextlib.suppress(GoneError):
            for path in _FILEIO.findall(read_text(place)):
                yield f"SCSI target {clean(place.parent.name, 64)}", path


def _number(path: str) -> str:
    try:
        return device_number(path)
    except (OSError, ValueError):
        return ""  # it is not there any more, or the name means nothing here
