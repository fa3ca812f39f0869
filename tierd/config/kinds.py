"""The kinds of value that the policy schema names in `x-kind`: how each is read, and what it must look like.

Each reader takes the text (or, where noted, the number) from the file and gives the value; it raises
ValueError with what to write instead. Called by shape.py to check and by build.py to convert, so that both
agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tierd.config import class_kinds
from tierd.config.scalars import Word
from tierd.core.text import clean
from tierd.core.units import parse_duration, parse_rate, parse_share, parse_size

PROCESS_UNITS = (".service", ".scope", ".slice")
"""Unit types whose cgroups hold processes for as long as they run."""

_OTHER_UNITS = (
    ".socket",
    ".device",
    ".mount",
    ".automount",
    ".swap",
    ".target",
    ".path",
    ".timer",
    ".snapshot",
)

_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")  # systemd.unit(5): the characters of a unit name
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,55}")
_ZERO = re.compile(r"[-+]?0+(?:\.0*)?")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]{1,16}")
_DECIMAL = re.compile(r"-?[0-9]{1,20}")

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SIGNATURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+ -]{0,59}")
_DEVICE = re.compile(r"(?:/dev/)?(?:region|namespace|nmem|pmem|dax|btt|pfn)[0-9.s]*(?:p[0-9]+)?")

_DEVICE_NAME = re.compile(r"(?:region|namespace|nmem|pmem|dax|btt|pfn)[0-9.s]*")
_MEMDEV_NAME = re.compile(r"(?:mem|region|dax|decoder|endpoint)[0-9.]*")
_SERIAL = re.compile(r"[0-9a-f]{4}(-[0-9a-f]{2}-[0-9a-f]{4})?-[0-9a-f]{8}")
"""VENDOR[-LOCATION-DATE]-SERIAL (id_show, drivers/acpi/nfit/core.c)."""

_HOW_TO_NAME_A_NAMESPACE = (
    'write the UUID that `ndctl list -N` prints, for example "3f2a6f1c-0b7d-4c1e-9a52-7d1f0c9be6a1"'
)
_HOW_TO_CONSENT = "write destroy where it is empty, or {destroy: SIGNATURE} with the signature that it has"
_HOW_TO_NAME_A_MEMDEV = 'write the serial that `cxl list -Mu` prints, for example "0x1a2b3c4d"'
_HOW_TO_NAME_A_REGION = 'write the iset_id that `ndctl list -Ruv` prints, for example "0x9f2c51e3a4b0d678"'


@dataclass(frozen=True, slots=True)
class Amount:
    """How much of a region, as ProvisionRequest has it. All None: all that is free."""

    size: int | None = None
    per_cent: float | None = None
    all_but: int | None = None


def amount(text: str) -> Amount:
    """`text` as a size, a share of the region, ``all but`` a size, ``all``, or ``none``."""
    if text == "all":
        return Amount()
    if text == "none":
        return Amount(size=0)
    if text.startswith("all but"):
        rest = text.removeprefix("all but").strip()
        if not rest:
            raise ValueError("`all but` leaves open what; write a size after it, for example all but 64GiB")
        return Amount(all_but=parse_size(rest))
    if text.endswith("%"):
        share = parse_share(text)
        if not share:
            raise ValueError(f"`{clean(text, 60)}` gives everything back; write none")
        return Amount(per_cent=share)
    size = 0 if _ZERO.fullmatch(text) else parse_size(text)
    if not size:
        raise ValueError(f"`{clean(text, 60)}` gives everything back; write none")
    return Amount(size=size)


def capacity(text: str) -> int | None:
    """`text` as an amount; its bytes where it has bounds, which only a size has."""
    return None if text == "none" else amount(text).size


def unit_name(text: str) -> str:
    """The full name of one systemd unit that holds processes."""
    shown = clean(text, 60)
    if re.search(r"[*?\[\]]", text):
        raise ValueError(
            f'`{shown}` is a glob; unit takes one whole name, so write cgroup: "*/{shown}" instead'
        )
    if "/" in text:
        raise ValueError(
            f"`{shown}` is a path; unit takes a name such as postgresql.service, cgroup takes paths"
        )
    if not _UNIT.fullmatch(text):
        raise ValueError(f"`{shown}` is not the name of a systemd unit; write one that `systemctl` lists")
    if text.endswith(_OTHER_UNITS):
        raise ValueError(
            f"`{shown}` runs no processes of its own; name the .service, .scope or .slice that does"
        )
    if not text.endswith(PROCESS_UNITS):
        raise ValueError(f"`{shown}` has no unit suffix; write {shown}.service (or .scope, .slice)")
    stem = text.rpartition(".")[0]
    if not stem:
        raise ValueError(f"`{shown}` has a suffix and no name; write for example postgresql{text}")
    if stem.endswith("@"):
        instances = f"{stem}*{text[len(stem) :]}"
        raise ValueError(
            f'`{shown}` is a template; name an instance, or write cgroup: "*/{instances}" for all'
        )
    return text


def cgroup_glob(text: str) -> str:
    """A glob over cgroup paths as ``ps -o cgroup`` shows them after ``0::``; ``*`` crosses ``/``."""
    shown = clean(text, 60)
    if "fs/cgroup" in text:
        raise ValueError(
            f"`{shown}` is a path in the file system; write the part below the cgroup root, "
            'for example "/system.slice/*"'
        )
    if not text.startswith(("/", "*", "?", "[")):
        raise ValueError(
            f'`{shown}` matches nothing: cgroup paths begin with a slash; write "/{shown}" or "*/{shown}"'
        )
    if len(text) > 1 and text.endswith("/"):
        raise ValueError(f'`{shown}` matches nothing: no cgroup path ends with a slash; write "{shown}*"')
    if "//" in text or {".", ".."} & set(text.split("/")):
        raise ValueError(f"`{shown}` matches nothing; write the path as `ps -o cgroup` shows it")
    if len(text) > 1024:
        raise ValueError(f"`{shown}` is longer than 1024 characters; match a part of it with *")
    return text


def request_name(text: str) -> str:
    """The name of a provisioning request: instance of a unit, argument of a command, part of a label."""
    if not _NAME.fullmatch(text):
        raise ValueError(
            f"`{clean(text, 60)}` is not a name; write up to 56 letters, digits and `_.-`, "
            "beginning with a letter or digit"
        )
    return text


def namespace_uuid(text: str) -> str:
    """The UUID of one namespace, in lower case."""
    shown = clean(text, 60)
    if _UUID.fullmatch(text):
        if not text.strip("0-"):
            raise ValueError(f"`{shown}` is no UUID: the namespace has none; {_HOW_TO_NAME_A_NAMESPACE}")
        return text.lower()
    if re.search(r"[*?\[\]]", text):
        raise ValueError(f"`{shown}` is a glob; one namespace is meant, so {_HOW_TO_NAME_A_NAMESPACE}")
    if text == "all" or _DEVICE.fullmatch(text):
        raise ValueError(f"`{shown}` is a name, and names renumber over reboots; {_HOW_TO_NAME_A_NAMESPACE}")
    raise ValueError(f"`{shown}` is not a UUID; {_HOW_TO_NAME_A_NAMESPACE}")


def dimm_serial(text: str) -> str:
    """What names one DIMM for good, in lower case, as the kernel and ndctl show it."""
    if not _SERIAL.fullmatch(text.lower()):
        raise ValueError(
            f"`{clean(text, 60)}` is not the serial number of a DIMM; write the id that `ndctl list -D`"
            ' prints, for example "8680-56341200"'
        )
    return text.lower()


def signature(text: str) -> str:
    """What a namespace holds, as blkid names it."""
    if not _SIGNATURE.fullmatch(text):
        raise ValueError(f"`{clean(text, 60)}` is not a signature; write one such as ext4, or unknown data")
    return text


def consent(value: object) -> str:
    """What may be destroyed: a signature, or nothing (the empty text) where consent is to an empty
    namespace."""
    if value == "destroy":
        return ""
    if isinstance(value, Mapping):
        if "destroy" not in value:
            raise ValueError(f"the key `destroy` is missing; {_HOW_TO_CONSENT}")
        found = value["destroy"]
        return found if isinstance(found, str) else ""  # whose own kind complains about it
    if isinstance(value, str):
        raise ValueError(f"`{clean(value, 60)}` is no consent; {_HOW_TO_CONSENT}")
    if isinstance(value, Word):
        raise ValueError(f"{misplaced(value)}; {_HOW_TO_CONSENT}")
    raise ValueError(f"{described(value)} is no consent; {_HOW_TO_CONSENT}")


def iset_id(value: str | int) -> int:
    """An interleave set as an unsigned 64-bit integer, from hexadecimal text or a decimal number.

    ndctl prints the number signed in JSON and in hexadecimal with `--human`; both are accepted.
    """
    shown, number = clean(str(value), 60), _number(value, _DEVICE_NAME, _HOW_TO_NAME_A_REGION)
    if number is None:
        if re.search(r"[*?\[\]]", str(value)):
            raise ValueError(f"`{shown}` is a glob; one region is meant, so {_HOW_TO_NAME_A_REGION}")
        raise ValueError(f"`{shown}` is not an interleave set; {_HOW_TO_NAME_A_REGION}")
    if not -(1 << 63) <= number < 1 << 64:
        raise ValueError(f"`{shown}` has more than 64 bits; {_HOW_TO_NAME_A_REGION}")
    if number == 0:
        raise ValueError(
            f"`{shown}` is no interleave set: the region has no labels; {_HOW_TO_NAME_A_REGION}"
        )
    return number % (1 << 64)


def _number(value: str | int, names: re.Pattern[str], how: str) -> int | None:
    """A number, or one written as hexadecimal or decimal text; None for other text. Raises ValueError, which
    says `how` to name the device, for one of its `names`."""
    if isinstance(value, int):
        return value
    if _HEXADECIMAL.fullmatch(value):
        return int(value, 16)
    if value == "all" or names.fullmatch(value):
        raise ValueError(f"`{clean(value, 60)}` is a name, and names renumber over reboots; {how}")
    return int(value) if _DECIMAL.fullmatch(value) else None


def cxl_serial(value: str | int) -> int:
    """The serial number of a CXL memory device as an unsigned 64-bit integer, from hexadecimal text or a
    decimal number: `cxl list -Mu` prints the one, `cxl list -M` the other."""
    shown, number = clean(str(value), 60), _number(value, _MEMDEV_NAME, _HOW_TO_NAME_A_MEMDEV)
    if number is None:
        raise ValueError(f"`{shown}` is not a serial number; {_HOW_TO_NAME_A_MEMDEV}")
    if not 0 < number < 1 << 64:
        raise ValueError(f"`{shown}` is no serial number of 64 bits; {_HOW_TO_NAME_A_MEMDEV}")
    return number


TEXT_KINDS: dict[str, tuple[Callable[[str], object], str]] = {
    # kind: (reader, an example of what to write)
    "size": (parse_size, "512MiB"),
    "capacity": (capacity, "2GiB, 40%, all but 64GiB, all, or none"),
    "rate": (parse_rate, "512MiB/s"),
    "duration": (parse_duration, "30s"),
    "share": (parse_share, "40%"),
    "unit": (unit_name, "postgresql.service"),
    "cgroup": (cgroup_glob, '"/system.slice/*"'),
    "name": (request_name, "pmem0"),
    "namespace_uuid": (namespace_uuid, '"3f2a6f1c-0b7d-4c1e-9a52-7d1f0c9be6a1"'),
    "dimm_serial": (dimm_serial, '"8680-56341200"'),
    "signature": (signature, "ext4"),
    "class_name": (class_kinds.class_name, "gold"),
    "command": (class_kinds.command_glob, "qemu-system-x86"),
    "dram_bound": (class_kinds.dram_bound, "30%, or 2GiB"),
}


_FREE_TEXT = frozenset(
    {
        *("unit", "cgroup", "name", "namespace_uuid", "dimm_serial", "signature"),
        *("class_name", "command"),
    }
)
"""Kinds whose text may look like something else."""


def read(kind: str, value: object) -> object:
    """`value` of the document as `kind`. Raises ValueError when it is not one."""
    if kind == "iset_id":
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise ValueError(f"{described(value)} is not an interleave set; {_HOW_TO_NAME_A_REGION}")
        return iset_id(value)
    if kind == "consent":
        return consent(value)
    if kind == "cxl_serial":
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise ValueError(f"{described(value)} is not a serial number; {_HOW_TO_NAME_A_MEMDEV}")
        return cxl_serial(value)
    if kind == "dram":
        if not isinstance(value, (str, Mapping)):
            raise ValueError(f"{misplaced(value)}; {class_kinds.HOW_TO_SHARE}")
        return class_kinds.dram(value)
    if kind == "user":
        if isinstance(value, Word):
            raise ValueError(f'{misplaced(value)}; write "{value.text}" in quotes if the text is meant')
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise ValueError(f"{described(value)} is not a user; write a name, or a number")
        return class_kinds.user(value)
    reader, example = TEXT_KINDS[kind]
    if isinstance(value, str):
        return reader(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if kind in _FREE_TEXT:
            raise ValueError(
                f'`{value}` is a number to YAML; write "{value}" in quotes if the text is meant'
            )
        return reader(str(value))  # says how to write a bare number
    if isinstance(value, Word) and kind in _FREE_TEXT:
        raise ValueError(f'{misplaced(value)}; write "{value.text}" in quotes if the text is meant')
    raise ValueError(f"{misplaced(value)}; write for example {example}")


def misplaced(value: object) -> str:
    """The beginning of a complaint about a value where nothing of its kind can be."""
    if isinstance(value, Word):
        return f"`{value.text}` is a boolean in YAML 1.1, and no key takes one"
    return f"{described(value)} cannot be here"


def described(value: object) -> str:
    """What `value` is, in an operator's words."""
    if isinstance(value, Word):
        return f"the boolean `{value.text}`"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the boolean `{str(value).lower()}`"
    if isinstance(value, (int, float)):
        return f"the number `{value}`"
    if isinstance(value, str):
        return f"the text `{clean(value, 60)}`"
    return "a list" if isinstance(value, list) else "a mapping"
