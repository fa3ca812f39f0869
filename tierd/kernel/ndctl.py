"""What `ndctl list` prints, as typed values. Everything else about a region comes from sysfs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

from tierd.core.inventory import Dimm
from tierd.errors import MalformedError
from tierd.kernel.tools import Tools

LIST = ("ndctl", "list", "-RNDvi")
"""Regions, namespaces and DIMMs, verbose, the idle ones too."""

LIST_WITH_HEALTH = ("ndctl", "list", "-RNDHvi")
"""The same, and what the DIMMs say of their health, which means asking their firmware."""

_FLAG = "flag_"

_NAMES = {
    "region": re.compile(r"region\d{1,9}", re.ASCII),
    "namespace": re.compile(r"namespace\d{1,9}\.\d{1,9}", re.ASCII),
    "dax device": re.compile(r"dax\d{1,9}\.\d{1,9}", re.ASCII),
    "DIMM": re.compile(r"nmem\d{1,9}", re.ASCII),
}
"""What the kernel calls them: a name becomes a path in sysfs, and an argument of a tool."""

_UNSIGNED = (1 << 64) - 1
_NO_UUID = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class ListedNamespace:
    """A namespace as ndctl shows it. chardevs: names of its dax devices. blockdev: name of its block device.
    label_uuid: the label's own UUID, which a reconfiguration leaves.
    """

    name: str
    mode: str
    uuid: str | None
    label: str
    enabled: bool
    chardevs: tuple[str, ...]
    blockdev: str | None = None
    label_uuid: str | None = None


@dataclass(frozen=True, slots=True)
class ListedRegion:
    """A region of type pmem as ndctl shows it. dimms: names of the DIMMs that it interleaves."""

    name: str
    iset_id: int | None
    enabled: bool
    dimms: tuple[str, ...]
    namespaces: tuple[ListedNamespace, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """All of it. locked: names of DIMMs whose security state keeps them from being used."""

    regions: tuple[ListedRegion, ...]
    locked: frozenset[str]
    dimms: tuple[Dimm, ...] = ()


def list_regions(tools: Tools, *, health: bool = False) -> Listing:
    """Ask ndctl. health: also what the DIMMs say of theirs. Raises UnsupportedError, ToolError,
    MalformedError."""
    return parse_listing(tools.json(LIST_WITH_HEALTH if health else LIST))


def parse_listing(document: object) -> Listing:
    """The listing in ndctl's JSON: an object with `regions` and `dimms`, an array of regions when there is
    nothing else, or nothing at all. Unknown keys are passed over. Raises MalformedError, which names the
    place."""
    if isinstance(document, list):
        # one class of object, or none: what it is, its keys say
        regions = [item for item in document if _is_region(item)]
        dimms = [item for item in document if not _is_region(item)]
    else:
        whole = _mapping(document, "ndctl list")
        regions = _items(whole, "regions", "ndctl list")
        dimms = _items(whole, "dimms", "ndctl list")
        if "dev" in whole and _is_region(whole):
            regions = [whole]
    parsed = tuple(_region(item, f"regions[{i}]") for i, item in enumerate(regions))
    return Listing(
        tuple(region for region in parsed if region is not None),
        frozenset(_name(_mapping(d, "dimms"), "dev", "dimms", "DIMM") for d in dimms if _locked(d)),
        tuple(_dimm(item, f"dimms[{i}]", regions) for i, item in enumerate(dimms)),
    )


def _is_region(item: object) -> bool:
    return isinstance(item, dict) and (
        "available_size" in item or "mappings" in item or "namespaces" in item
    )


def _locked(item: object) -> bool:
    security = _mapping(item, "dimms").get("security")
    return isinstance(security, str) and security in ("locked", "overwrite")


def _dimm(item: object, place: str, regions: list[object]) -> Dimm:
    found = _mapping(item, place)
    name = _name(found, "dev", place, "DIMM")
    health = _mapping(found.get("health", {}), f"{place}.health")
    mapped: dict[str, int] = {}
    for region in (_mapping(item, "regions") for item in regions):
        for mapping in (_mapping(m, "mappings") for m in _items(region, "mappings", "regions")):
            if mapping.get("dimm") == name:
                length = _optional_number(mapping, "length", "mappings") or 0
                mapped[_text(region, "dev", "regions")] = length
    return Dimm(
        name=name,
        serial=_optional_text(found, "id", place),
        size=sum(mapped.values()) if mapped else None,
        security=_optional_text(found, "security", place),
        # flag_failed_flush, flag_smart_event ...: present when true (ndctl/json.c, util_dimm_to_json)
        flags=tuple(
            sorted(
                key.removeprefix(_FLAG).replace("_", " ")
                for key, value in found.items()
                if key.startswith(_FLAG) and value is True
            )
        ),
        health=_optional_text(health, "health_state", f"{place}.health"),
        regions=tuple(mapped),
    )


def _region(item: object, place: str) -> ListedRegion | None:
    """None for a region that is not persistent memory (``blk``, or volatile)."""
    found = _mapping(item, place)
    if _optional_text(found, "type", place) not in (None, "pmem"):
        return None
    name = _name(found, "dev", place, "region")
    iset_id = _optional_number(found, "iset_id", place)
    return ListedRegion(
        name=name,
        iset_id=None if not iset_id else iset_id & _UNSIGNED,
        enabled=_optional_text(found, "state", place) != "disabled",
        dimms=tuple(
            _name(_mapping(m, f"{place}.mappings"), "dimm", f"{place}.mappings", "DIMM")
            for m in _items(found, "mappings", place)
        ),
        namespaces=tuple(
            _namespace(n, f"{place}.namespaces[{i}]")
            for i, n in enumerate(_items(found, "namespaces", place))
        ),
    )


def _namespace(item: object, place: str) -> ListedNamespace:
    found = _mapping(item, place)
    uuid = _uuid(found, "uuid", place)
    chardevs = []
    if "daxregion" in found:
        region = _mapping(found["daxregion"], f"{place}.daxregion")
        for device in _items(region, "devices", f"{place}.daxregion"):
            within = f"{place}.devices"
            chardevs.append(_name(_mapping(device, within), "chardev", within, "dax device"))
    elif _optional_text(found, "chardev", place):
        chardevs.append(_name(found, "chardev", place, "dax device"))
    return ListedNamespace(
        name=_name(found, "dev", place, "namespace"),
        mode=_text(found, "mode", place),
        uuid=uuid,
        label=_optional_text(found, "name", place) or "",
        enabled=_optional_text(found, "state", place) != "disabled",
        chardevs=tuple(chardevs),
        blockdev=_optional_text(found, "blockdev", place),
        # shown apart only where something (dax, pfn, btt) has claimed the namespace
        label_uuid=_uuid(found, "raw_uuid", place) or uuid,
    )


def _uuid(mapping: dict[str, object], key: str, place: str) -> str | None:
    uuid = _optional_text(mapping, key, place)
    return None if uuid in (None, _NO_UUID) else uuid


def _mapping(value: object, place: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise MalformedError(f"ndctl: {place}: expected an object, found {_kind(value)}")
    return cast("dict[str, object]", value)


def _items(mapping: dict[str, object], key: str, place: str) -> list[object]:
    value = mapping.get(key, [])
    if not isinstance(value, list):
        raise MalformedError(f"ndctl: {place}.{key}: expected an array, found {_kind(value)}")
    return value


def _text(mapping: dict[str, object], key: str, place: str) -> str:
    value = _optional_text(mapping, key, place)
    if not value:
        raise MalformedError(f"ndctl: {place}.{key}: missing")
    return value


def _name(mapping: dict[str, object], key: str, place: str, kind: str) -> str:
    value = _text(mapping, key, place)
    if not _NAMES[kind].fullmatch(value):
        raise MalformedError(f"ndctl: {place}.{key}: {value[:40]!r} is no name of a {kind}")
    return value


def _optional_text(mapping: dict[str, object], key: str, place: str) -> str | None:
    value = mapping.get(key)
    if value is not None and not isinstance(value, str):
        raise MalformedError(f"ndctl: {place}.{key}: expected text, found {_kind(value)}")
    return value


def _optional_number(mapping: dict[str, object], key: str, place: str) -> int | None:
    value = mapping.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise MalformedError(f"ndctl: {place}.{key}: expected a number, found {_kind(value)}")
    return value


def _kind(value: object) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"
