"""Whether a device may go: mounts, swap, volumes, processes that have it open or mapped.

What is destroyed is decided upon this, so what cannot be seen is an error and never an empty answer. For a
picture to look at, kernel/users.py shows what the reader may see.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from tierd.core.inventory import Use
from tierd.core.text import clean
from tierd.errors import GoneError, MalformedError, TierdError
from tierd.kernel.files import named_errors, read_text
from tierd.kernel.paths import Root

_ESCAPE = re.compile(r"\\([0-7]{3})")


def block_devices(root: Root, namespace: str) -> tuple[str, ...]:
    """The block devices of a namespace and their partitions, such as ``pmem0``, ``pmem0p1``; of a btt or pfn
    on top of it too. Empty in devdax mode."""
    found: list[str] = []
    for directory in sorted(_claims(root, namespace)):
        for entry in _entries(directory / "block"):
            found.append(entry)
            found += [part for part in _entries(root.block_devices / entry) if part.startswith(f"{entry}p")]
    return tuple(dict.fromkeys(found))


def _claims(root: Root, namespace: str) -> Iterator[Path]:
    """The namespace and the devices that say that they are on it."""
    yield root.nd_devices / namespace
    for entry in _entries(root.nd_devices):
        if entry.startswith(("btt", "pfn", "dax")):
            with contextlib.suppress(TierdError):
                if read_text(root.nd_devices / entry / "namespace").strip() == namespace:
                    yield root.nd_devices / entry


def uses_of(root: Root, names: Iterable[str]) -> dict[str, tuple[Use, ...]]:
    """For each device, such as ``pmem0`` or ``dax0.0``, who uses it. For root.

    Raises DeniedError where processes hide what they have open: then nothing is known.
    """
    found: dict[str, dict[Use, None]] = {name: {} for name in names}
    if not found:
        return {}
    numbers = {number: name for name in found if (number := _number(root, name))}
    for name in found:
        for holder in _entries(root.block_devices / name / "holders"):
            found[name][Use("holder", f"{holder} is made of it")] = None
    for name, words in _swaps(root, set(found)):
        found[name][Use("swap", words)] = None
    for name, words in _loops(root, set(found)):
        found[name][Use("holder", words)] = None
    seen: set[str] = set()
    for pid in _entries(root.proc):
        if not pid.isdecimal():
            continue
        directory = root.proc / pid
        with contextlib.suppress(GoneError):
            for name, use in _mounts(directory, numbers, set(found), seen):
                found[name][use] = None
            for name, how in _handles(directory, numbers, set(found)):
                found[name][Use(how, f"process {pid} ({_command(directory)}) has it {how}")] = None
    return {name: tuple(uses) for name, uses in found.items()}


def _number(root: Root, name: str) -> str:
    """``MAJOR:MINOR`` of a device, empty when it is not there."""
    for directory in (root.block_devices / name, root.dax_devices / name):
        with contextlib.suppress(GoneError):
            return read_text(directory / "dev").strip()
    return ""


def _swaps(root: Root, names: set[str]) -> Iterator[tuple[str, str]]:
    with contextlib.suppress(GoneError):
        for line in read_text(root.proc / "swaps").splitlines()[1:]:
            path = _unescaped(line.split()[0])
            if (name := os.path.basename(path)) in names:
                yield name, f"{path} is swap"


def _loops(root: Root, names: set[str]) -> Iterator[tuple[str, str]]:
    """Loop devices over one of the devices: the kernel has it open, and no process has."""
    for loop in _entries(root.block_devices):
        if loop.startswith("loop"):
            with contextlib.suppress(GoneError):
                backing = read_text(root.block_devices / loop / "loop/backing_file").strip()
                if (name := os.path.basename(backing)) in names:
                    yield name, f"{loop} is made of it"


def _mounts(
    process: Path, numbers: dict[str, str], names: set[str], seen: set[str]
) -> Iterator[tuple[str, Use]]:
    """Mounts in the process's mount namespace, unless it has been looked at."""
    namespace = _mount_namespace(process)
    if namespace is None or (namespace and namespace in seen):
        return
    try:
        lines = read_text(process / "mountinfo").splitlines()
    except MalformedError:
        if _mount_namespace(process) is None:
            return  # EINVAL of a process that is ending
        raise
    seen.add(namespace)
    for line in lines:
        fields, _, behind = line.partition(" - ")
        parts, source = fields.split(" "), behind.split(" ")
        if len(parts) < 5 or len(source) < 2:
            continue
        # btrfs gives a number of its own, and the device as the source
        name = numbers.get(parts[2]) or os.path.basename(_unescaped(source[1]))
        if name in names:
            yield name, Use("mounted", f"mounted on {clean(_unescaped(parts[4]), 200)}")


def _mount_namespace(process: Path) -> str | None:
    """Which one it is, empty when that cannot be read; None of a process that has none any more."""
    try:
        return os.readlink(process / "ns/mnt")
    except FileNotFoundError:
        return None
    except OSError:
        return ""


def _handles(process: Path, numbers: dict[str, str], names: set[str]) -> Iterator[tuple[str, str]]:
    """Devices that a process has open or mapped. Raises GoneError, DeniedError."""
    for descriptor in _entries(process / "fd", required=True):
        if name := _device(process / "fd" / descriptor, numbers, names):
            yield name, "open"
    for line in read_text(process / "maps").splitlines():
        parts = line.split(" ", 5)
        path = parts[5].strip() if len(parts) == 6 else ""
        if path.startswith("/dev/") or os.path.basename(path).removesuffix(" (deleted)") in names:
            name = os.path.basename(path.removesuffix(" (deleted)"))
            name = name if name in names else _device(process / "map_files" / parts[0], numbers, names)
            if name:
                yield name, "mapped"


def _device(link: Path, numbers: dict[str, str], names: set[str]) -> str:
    """Which of the devices an open file is; by its number, since a container may call it anything."""
    try:
        found = os.stat(link)
    except OSError:
        try:
            target = os.readlink(link)
        except OSError:
            return ""
        name = os.path.basename(target)
        return name if target.startswith("/dev/") and name in names else ""
    if not (stat.S_ISBLK(found.st_mode) or stat.S_ISCHR(found.st_mode)):
        return ""
    return numbers.get(f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}", "")


def _entries(directory: Path, *, required: bool = False) -> list[str]:
    """Names in a directory, none when it is not there. required: raises what the system refuses."""
    try:
        with named_errors(directory):
            return sorted(os.listdir(directory))
    except GoneError:
        if required:
            raise
        return []


def _command(process: Path) -> str:
    try:
        return clean(read_text(process / "comm").strip(), 32)
    except TierdError:
        return "?"


def _unescaped(text: str) -> str:
    r"""mountinfo and swaps write a space as ``\040``."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
