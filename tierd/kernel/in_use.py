"""Whether a device may go: mounts, swap, volumes, processes that have it open or mapped.

What is destroyed is decided upon this, so what cannot be seen is an error and never an empty answer. For a
picture to look at, kernel/users.py shows what the reader may see.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tierd.core.inventory import Namespace, Use, Users
from tierd.core.text import clean
from tierd.errors import GoneError, MalformedError, TierdError
from tierd.kernel.files import named_errors, read_text
from tierd.kernel.kernel_openers import kernel_openers
from tierd.kernel.paths import Root
from tierd.kernel.syscalls import device_number

_ESCAPE = re.compile(r"\\([0-7]{3})")

_NO_FILE = "00:00"
"""What maps says of memory that is no file's: every file system has a number of its own."""

_TRIES = 10
"""How often a process is looked at that changes meanwhile."""


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


def users_of(root: Root, namespaces: Sequence[Namespace]) -> dict[str, Users]:
    """Who uses each namespace, by its name: by block device, by dax device, or inside the kernel. For root.

    Raises nothing of TierdError: why it cannot be told is in the answer.
    """
    try:
        devices = {n.name: devices_of(root, n) for n in namespaces}
        uses = uses_of(root, [device for found in devices.values() for device in found])
    except TierdError as error:
        return {namespace.name: Users(blind=str(error)) for namespace in namespaces}
    users = {}
    for namespace, names in devices.items():
        found = [use for name in names for use in uses[name]]
        try:
            if not found:
                blocks = (name for name in names if not (root.dax_devices / name).exists())
                found = [Use("holder", f"the kernel holds {name}") for name in blocks if _held(root, name)]
            users[namespace] = Users(tuple(dict.fromkeys(found)))
        except TierdError as error:
            users[namespace] = Users(blind=str(error))
    return users


def devices_of(root: Root, namespace: Namespace) -> tuple[str, ...]:
    """Its block devices and its dax device, by name."""
    found = block_devices(root, namespace.name)
    return found if namespace.dax is None else (namespace.dax.name, *found)


def _held(root: Root, device: str) -> bool:
    """Whether somebody has the block device for himself alone, as a mount or a volume has it."""
    path = root.dev / device
    try:
        with named_errors(path):
            os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except MalformedError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EBUSY:
            return True
        raise
    return False


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
    for name, words in kernel_openers(root, set(found), numbers):
        found[name][Use("holder", words)] = None
    seen: set[str] = set()
    sought = _Sought(numbers, frozenset(found), private=not _all_dax(root, found))
    for pid in _entries(root.proc):
        if not pid.isdecimal():
            continue
        directory = root.proc / pid
        with contextlib.suppress(GoneError):
            for name, use in _mounts(directory, numbers, set(found), seen):
                found[name][use] = None
            for name, how in _handles(directory, sought):
                found[name][Use(how, f"process {pid} ({_command(directory)}) has it {how}")] = None
    return {name: tuple(uses) for name, uses in found.items()}


def _all_dax(root: Root, names: Iterable[str]) -> bool:
    return all((root.dax_devices / name).exists() for name in names)


def _number(root: Root, name: str) -> str:
    """``MAJOR:MINOR`` of a device, empty when it is not there."""
    for directory in (root.block_devices / name, root.dax_devices / name):
        with contextlib.suppress(GoneError):
            return read_text(directory / "dev").strip()
    return ""


def _swaps(root: Root, names: set[str]) -> Iterator[tuple[str, str]]:
    with contextlib.suppress(GoneError):
        for line in _lines(root.proc / "swaps")[1:]:
            path = _unescaped(line.split()[0])
            if (name := os.path.basename(path)) in names:
                yield name, f"{path} is swap"


def _mounts(
    process: Path, numbers: dict[str, str], names: set[str], seen: set[str]
) -> Iterator[tuple[str, Use]]:
    """Mounts in the process's mount namespace, unless it has been looked at."""
    namespace = _mount_namespace(process)
    if namespace is None:
        # its main thread has ended; others may live
        for thread in _threads(process):
            with contextlib.suppress(GoneError):
                yield from _mounts(thread, numbers, names, seen)
        return
    if namespace and namespace in seen:
        return
    try:
        lines = _lines(process / "mountinfo")
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


@dataclass(frozen=True, slots=True)
class _Sought:
    """The devices that are looked for. numbers: their names by ``MAJOR:MINOR``. private: whether one of
    them can be mapped privately, which the kernel refuses of a dax device."""

    numbers: dict[str, str]
    names: frozenset[str]
    private: bool


def _handles(process: Path, sought: _Sought) -> list[tuple[str, str]]:
    """Devices that a process has open or mapped. Raises DeniedError, MalformedError."""
    found: list[tuple[str, str]] = []
    with contextlib.suppress(GoneError):
        found, alive = _of_task(process, process, sought)
        if alive:
            return found
    # a thread of the kernel; or the main thread has ended, which shows nothing of what the others have
    for _ in range(_TRIES):
        alive = vanished = False
        for thread in _threads(process):
            try:
                handles, memory = _of_task(thread, process.parent / thread.name, sought)
            except GoneError:
                vanished = True
                continue
            found += handles
            alive = alive or memory
        if alive or not vanished:
            return found
    raise MalformedError(f"{process}/task: threads end faster than they can be looked at")


def _threads(process: Path) -> list[Path]:
    """All but the main one."""
    return [process / "task" / name for name in _entries(process / "task") if name != process.name]


def _of_task(task: Path, whole: Path, sought: _Sought) -> tuple[list[tuple[str, str]], bool]:
    """What a thread has open or mapped, and whether it has memory: one that has ended has neither.

    whole: where its map_files are, which task/TID lacks. Raises GoneError, DeniedError, MalformedError.
    """
    opened = set()
    for descriptor in _entries(task / "fd", required=True):
        with contextlib.suppress(GoneError):  # closed meanwhile
            opened.add(_device(task / "fd" / descriptor, sought))
    # behind the descriptors: who has memory now had descriptors then
    mapped, memory = _mapped(task / "maps", whole / "map_files", sought)
    found = [*((name, "open") for name in sorted(opened)), *((name, "mapped") for name in sorted(mapped))]
    return [handle for handle in found if handle[0]], memory


def _mapped(maps: Path, files: Path, sought: _Sought) -> tuple[set[str], bool]:
    """Devices that are mapped, and whether anything is. Raises GoneError, DeniedError, MalformedError."""
    found: set[str] = set()
    asked: set[tuple[str, str, str]] = set()
    for _ in range(_TRIES):
        missed = False
        lines = _lines(maps)
        for line in lines:
            parts = line.split(" ", 5)
            if len(parts) < 5:
                raise MalformedError(f"{maps}: expected five fields, found {line[:60]!r}")
            # DEVICE and INODE are those of the node that was opened, wherever it lies: not the device's own
            address, access, _, device, inode = parts[:5]
            path = parts[5].strip() if len(parts) == 6 else ""
            file = (device, inode, path)
            if device == _NO_FILE or file in asked or (access.endswith("p") and not sought.private):
                continue
            name = os.path.basename(path).removesuffix(" (deleted)")
            if name not in sought.names:
                try:
                    name = _device(files / _in_map_files(address), sought)
                except GoneError:
                    # unmapped, or one with its neighbour now: then it has another address
                    missed = True
                    continue
            asked.add(file)
            found.add(name)
        if not missed:
            return found, bool(lines)
    raise MalformedError(f"{maps}: changes faster than it can be looked at")


def _in_map_files(address: str) -> str:
    """An address range as map_files names it: without the zeros that maps writes in front."""
    start, _, end = address.partition("-")
    return f"{start.lstrip('0') or '0'}-{end.lstrip('0')}"


def _device(link: Path, sought: _Sought) -> str:
    """Which of the devices an open file is, empty when it is none; by its number, since a container may call
    it anything. Raises GoneError, DeniedError, MalformedError."""
    try:
        number = device_number(link)
    except OSError as error:
        with named_errors(link):
            target = os.readlink(link)
            if error.errno == errno.EPERM:
                raise
        # a FUSE file system answers its owner alone; its files are no devices
        name = os.path.basename(target).removesuffix(" (deleted)")
        return name if target.startswith("/dev/") and name in sought.names else ""
    return sought.numbers.get(number, "")


def _lines(path: Path) -> list[str]:
    """The lines of a file that escapes a line feed within a path, and nothing else that splitlines() takes
    for an end. Raises GoneError, DeniedError, MalformedError."""
    return [line for line in read_text(path).split("\n") if line]


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
