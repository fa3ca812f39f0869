"""Whether a device is meant to be mounted or to be swap, though it may not be now: fstab, crypttab, and
mount and swap units.

What is destroyed is decided upon this, so a table that cannot be read is an error and never an empty answer.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tierd.core.inventory import Use
from tierd.core.text import clean
from tierd.errors import GoneError
from tierd.kernel.files import read_text
from tierd.kernel.paths import Root

UNITS = (
    *("etc/systemd/system", "etc/systemd/system.control", "run/systemd/system", "run/systemd/transient"),
    *("usr/local/lib/systemd/system", "usr/lib/systemd/system"),
)
"""Where mount and swap units are (systemd.unit(5)). Not what generators make: they make it of fstab."""

_TAGS = {
    "UUID": "by-uuid",
    "LABEL": "by-label",
    "PARTUUID": "by-partuuid",
    "PARTLABEL": "by-partlabel",
    "ID": "by-id",
}
_OCTAL = re.compile(r"\\([0-7]{3})")
_HEX = re.compile(r"\\x([0-9a-f]{2})")
_SETTING = re.compile(r"\s*(What|Options)\s*=\s*(.*)")


def named_in_tables(root: Root, names: Iterable[str], uuids: Iterable[str | None]) -> tuple[Use, ...]:
    """Every line that names one of the devices, such as ``pmem0p1``, by any of its paths, by UUID or by
    label, or by the UUID of its namespace.

    Raises DeniedError, MalformedError where there is a table that cannot be read.
    """
    wanted = set(names)
    links = {link for name in wanted for link in _links(root, name)}
    idents = [uuid.lower() for uuid in uuids if uuid]
    found: dict[Use, None] = {}
    for path, number, spec in (*_tables(root), *_units(root)):
        if any(_means(root, part, wanted, links, idents) for part in _parts(spec)):
            place = f"/{path.relative_to(root.path)}, line {number}"
            found[Use("named", f"{place}, says {clean(spec, 200)}")] = None
    return tuple(found)


def _tables(root: Root) -> Iterator[tuple[Path, int, str]]:
    """Each entry of fstab and crypttab: its place, and what it says of devices."""
    for table, device, options in (("etc/fstab", 0, 3), ("etc/crypttab", 1, 3)):
        path = root.path / table
        for number, line in _lines(path):
            fields = [_unescaped(field) for field in line.split()]
            if fields and not fields[0].startswith("#") and len(fields) > device:
                yield path, number, fields[device]
                for option in _devices(fields[options] if len(fields) > options else ""):
                    yield path, number, option


def _units(root: Root) -> Iterator[tuple[Path, int, str]]:
    for directory in UNITS:
        base = root.path / directory
        for kind in ("mount", "swap"):
            for path in sorted((*base.glob(f"*.{kind}"), *base.glob(f"*.{kind}.d/*.conf"))):
                for number, line in _lines(path):
                    if setting := _SETTING.fullmatch(line):
                        key, value = setting.groups()
                        for spec in (value.strip(),) if key == "What" else _devices(value):
                            yield path, number, spec


def _devices(options: str) -> Iterator[str]:
    """Devices that options of a mount name: of btrfs, or for the journal of ext4 or XFS."""
    for option in options.split(","):
        _, _, value = option.partition("=")
        if value.startswith("/dev/"):
            yield value.strip()


def _parts(spec: str) -> list[str]:
    """The devices of one field: bcachefs names several, with colons between them."""
    return spec.replace(":/dev/", "\0/dev/").split("\0")


def _means(root: Root, spec: str, names: set[str], links: set[str], uuids: list[str]) -> bool:
    """Whether `spec` is one of the devices."""
    if any(uuid in spec.lower() for uuid in uuids):
        return True
    tag, equals, value = spec.partition("=")
    path = spec
    if equals and tag.upper() in _TAGS:
        path = f"/dev/disk/{_TAGS[tag.upper()]}/" + value.strip("\"'")
    # elsewhere is a file system of others, which may never answer
    if not path.startswith("/dev/"):
        return False
    if _plain(path) in links:
        return True
    place = os.path.realpath(root.path / path.lstrip("/"))
    return os.path.dirname(place) == os.path.realpath(root.dev) and os.path.basename(place) in names


def _links(root: Root, name: str) -> Iterator[str]:
    """The links that udev notes for a device, those too that another device of the same UUID has now."""
    with contextlib.suppress(GoneError):
        number = read_text(root.block_devices / name / "dev").strip()
        for line in read_text(root.path / f"run/udev/data/b{number}").splitlines():
            if line.startswith("S:"):
                yield _plain(f"/dev/{line[2:]}")


def _plain(path: str) -> str:
    r"""A link's name as it is compared: udev writes a space as ``\x20``, and of a UUID the case is free."""
    return _HEX.sub(lambda match: chr(int(match[1], 16)), path).lower()


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file, numbered; none when it is not there. A masked unit is a link to /dev/null."""
    with contextlib.suppress(GoneError):
        yield from enumerate(read_text(path).splitlines(), 1)


def _unescaped(text: str) -> str:
    r"""fstab writes a space as ``\040``."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
