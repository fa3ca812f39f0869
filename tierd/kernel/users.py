"""Who uses a block device or a dax device: mounts, swap, holders, processes that have it open.

For a picture to look at; nothing is decided upon it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tierd.errors import DeniedError, GoneError, MalformedError
from tierd.kernel.files import read_text
from tierd.kernel.paths import Root

_OCTAL = re.compile(r"\\([0-7]{3})")
_DEEPEST = 8
"""Levels of holders that are followed: a partition, LUKS, LVM and MD on one another are four."""


def read_users(
    root: Root, block_devices: Iterable[str], dax_devices: Iterable[str], denied: list[Path]
) -> dict[str, tuple[str, ...]]:
    """Who uses each device, in words (``ext4 at /srv``), by the device's name; none for one that is idle.

    denied: what only root may read is added here, once. Mounts are looked for in every mount namespace that
    may be seen. A file system that several devices share is found by the device that it was mounted from.
    """
    users: dict[str, list[str]] = {name: [] for name in (*block_devices, *dax_devices)}
    if not users:
        return {}
    owners = {name: name for name in dax_devices}
    for name in block_devices:
        for part in _parts(root, name):
            owners[part] = name
            if part != name:
                users[name].append(_called(root, part))
    numbers = {number: part for part in owners if (number := _number(root, part))}
    mounted = set()
    for words, part in (*_mounts(root, "self", numbers, owners), *_swaps(root, owners)):
        users[owners[part]].append(words)
        mounted.add(part)
    namespaces = {_link(root.proc / "self/ns/mnt")}
    for pid in sorted(int(path.name) for path in root.proc.glob("[0-9]*") if path.name.isdecimal()):
        for part in _opened(root, pid, owners, denied):
            users[owners[part]].append(f"open by {pid} ({_command(root, pid)})")
        namespace = _link(root.proc / f"{pid}/ns/mnt")
        if namespace is None or namespace in namespaces:
            continue
        namespaces.add(namespace)
        for words, part in _mounts(root, str(pid), numbers, owners):
            if part not in mounted:
                users[owners[part]].append(f"{words} in the mount namespace of {pid}")
    return {name: tuple(dict.fromkeys(found)) for name, found in users.items()}


def _parts(root: Root, name: str, depth: int = 0) -> Iterator[str]:
    """A block device, its partitions, and what holds any of them."""
    yield name
    if depth == _DEEPEST:
        return
    directory = root.block_devices / name
    partitions = [path.parent.name for path in directory.glob("*/partition")]
    for part in sorted((*partitions, *(path.name for path in directory.glob("holders/*")))):
        yield from _parts(root, part, depth + 1)


def _called(root: Root, name: str) -> str:
    for called in ("dm/name", "md/array_state"):
        text = _text(root.block_devices / name / called).strip()
        if text:
            return f"{name} ({text})"
    return name


def _number(root: Root, name: str) -> str:
    return _text(root.block_devices / name / "dev").strip()


def _mounts(
    root: Root, process: str, numbers: Mapping[str, str], owners: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Mounts of devices in the mount namespace of a process, in words, each with its device."""
    for line in _text(root.proc / process / "mountinfo").splitlines():
        # ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAGS...] - TYPE SOURCE OPTIONS (proc(5))
        before, _, after = line.partition(" - ")
        fields, described = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(described) < 2:
            continue
        source = os.path.basename(_unescaped(described[1]))
        # btrfs and others have device numbers of their own
        part = numbers.get(fields[2]) or (source if source in owners else None)
        if part is not None:
            yield f"{described[0]} at {_unescaped(fields[4])}", part


def _swaps(root: Root, owners: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for line in _text(root.proc / "swaps").splitlines()[1:]:
        name = os.path.basename(_unescaped(line.split(" ")[0].split("\t")[0]))
        if name in owners:
            yield "swap", name


def _opened(root: Root, pid: int, owners: Mapping[str, str], denied: list[Path]) -> set[str]:
    """Which of the devices a process has open."""
    directory = root.proc / f"{pid}/fd"
    found: set[str] = set()
    try:
        descriptors = os.listdir(directory)
    except PermissionError:
        everybody = root.proc / "PID/fd"
        if everybody not in denied:
            denied.append(everybody)
        return found
    except OSError:
        return found
    for descriptor in descriptors:
        target = _link(directory / descriptor) or ""
        if target.startswith("/dev/") and os.path.basename(target) in owners:
            found.add(os.path.basename(target))
    return found


def _command(root: Root, pid: int) -> str:
    return _text(root.proc / f"{pid}/comm").strip() or "?"


def _link(path: Path) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _text(path: Path) -> str:
    """The file's text, empty when there is none to be had."""
    try:
        return read_text(path)
    except (GoneError, DeniedError, MalformedError):
        return ""


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
