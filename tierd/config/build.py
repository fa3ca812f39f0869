"""From a document of the right shape to a Policy; and the checks that look at several values at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tierd.config import classes, kinds
from tierd.config.document import Document
from tierd.config.report import Mark, Report
from tierd.core.policy import (
    CxlRequest,
    EngineMode,
    EnginePolicy,
    NamespaceRequest,
    Policy,
    ProcessMatch,
    ProcessSelection,
    ProvisionMode,
    ProvisionRequest,
)
from tierd.core.text import clean
from tierd.core.units import parse_duration, parse_rate, parse_share, parse_size

Entry = tuple[int, Mapping[str, Any]]


def cross_check(document: Document, report: Report) -> None:
    """Adds to `report` what is wrong between provisioning requests, and between classes; tolerates any
    shape. Raises nothing."""
    requests = document.data.get("provision") if isinstance(document.data, dict) else None
    items: list[object] = requests if isinstance(requests, list) else []
    entries: list[Entry] = [(index, item) for index, item in enumerate(items) if isinstance(item, dict)]
    _check_names(entries, document, report)
    _check_regions(entries, document, report)
    _check_namespaces(entries, document, report)
    _check_cxl(entries, document, report)
    classes.cross_check(document, report)


def _check_names(entries: list[Entry], document: Document, report: Report) -> None:
    first: dict[str, Mark] = {}
    for index, entry in entries:
        name = entry.get("name")
        if not isinstance(name, str):
            continue
        location = ("provision", index, "name")
        mark = document.values[location]
        if name in first:
            report.add(
                mark, location, f"this name is already used on line {first[name].line}; give each its own"
            )
        first.setdefault(name, mark)


def _check_regions(entries: list[Entry], document: Document, report: Report) -> None:
    """`all` beside another request for the region: which gets what would depend on which unit runs first."""
    by_region: dict[int, list[Entry]] = {}
    for index, entry in entries:
        region = entry.get("region")
        try:
            number = kinds.read("iset_id", region.get("iset_id") if isinstance(region, dict) else None)
        except ValueError:
            continue
        assert isinstance(number, int)
        by_region.setdefault(number, []).append((index, entry))
    for asked in by_region.values():
        for index, entry in asked:
            others = [document.values[("provision", other)].line for other, _ in asked if other != index]
            size = entry.get("size")
            if others and isinstance(size, str) and (size == "all" or size.startswith("all but")):
                location = ("provision", index, "size")
                message = (
                    f"`{clean(size, 60)}` of a region that is also asked for on line {others[0]}; write a"
                    " size for each"
                )
                report.add(document.values[location], location, message)


def _check_namespaces(entries: list[Entry], document: Document, report: Report) -> None:
    """One namespace asked for twice."""
    first: dict[str, Mark] = {}
    for index, entry in entries:
        namespace = entry.get("namespace")
        key = "uuid" if isinstance(namespace, dict) and "uuid" in namespace else "dimm"
        identity = namespace.get(key) if isinstance(namespace, dict) else None
        if not isinstance(identity, str):
            continue
        location = ("provision", index, "namespace", key)
        mark = document.values[location]
        if identity.lower() in first:
            message = f"this namespace is already asked for on line {first[identity.lower()].line}; keep one"
            report.add(mark, location, message)
        first.setdefault(identity.lower(), mark)


def _check_cxl(entries: list[Entry], document: Document, report: Report) -> None:
    """A device asked for twice, which is one region's or the other's; a size that only another region
    can have."""
    first: dict[object, Mark] = {}
    for index, entry in entries:
        cxl = entry.get("cxl")
        serials = cxl.get("serials") if isinstance(cxl, dict) else None
        for position, serial in enumerate(serials if isinstance(serials, list) else ()):
            try:
                number = kinds.read("cxl_serial", serial)
            except ValueError:
                continue
            location = ("provision", index, "cxl", "serials", position)
            mark = document.values[location]
            if number in first:
                message = f"the device is already asked for on line {first[number].line}; keep one"
                report.add(mark, location, message)
            first.setdefault(number, mark)
        size = entry.get("size")
        if isinstance(cxl, dict) and isinstance(size, str) and (size.startswith("all but") or "%" in size):
            place = ("provision", index, "size")
            message = f"`{clean(size, 60)}` of CXL memory cannot be had; write a size, all, or none"
            report.add(document.values[place], place, message)


def build(
    document: Document,
    *,
    origin: str,
    drop_ins: tuple[str, ...],
    digest: str,
    warnings: tuple[str, ...],
    classes_file: str,
) -> Policy:
    """The policy in `document`, which has passed the schema and cross_check; absent keys take the defaults
    of Policy.

    origin, drop_ins, digest, warnings: as Policy has them. classes_file: in which the classes stand.
    """
    data = document.data
    assert isinstance(data, dict)
    processes = data.get("processes", {})
    selection = {name: tuple(ProcessMatch(**rule) for rule in rules) for name, rules in processes.items()}
    return Policy(
        processes=ProcessSelection(**selection),
        engine=_engine(data.get("engine", {})),
        provision=tuple(_request(e) for e in data.get("provision", ()) if "region" in e),
        namespaces=tuple(_namespace(e) for e in data.get("provision", ()) if "namespace" in e),
        cxl=tuple(_cxl_request(e) for e in data.get("provision", ()) if "cxl" in e),
        classes=classes.build(document, classes_file),
        origin=origin,
        drop_ins=drop_ins,
        digest=digest,
        warnings=warnings,
    )


def _engine(data: Mapping[str, Any]) -> EnginePolicy:
    readers: dict[str, Any] = {
        "mode": EngineMode,
        "bandwidth": parse_rate,
        "dram_floor": parse_size,
        "minimum_process": parse_size,
        "round": parse_duration,
        "cooldown": parse_duration,
        "heat_half_life": parse_duration,
        "huge_pages": "split".__eq__,
        "pressure_limit": parse_share,
    }
    return EnginePolicy(**{key: readers[key](value) for key, value in data.items()})


def _request(data: Mapping[str, Any]) -> ProvisionRequest:
    asked = kinds.amount(data["size"])
    return ProvisionRequest(
        name=data["name"],
        iset_id=kinds.iset_id(data["region"]["iset_id"]),
        size=asked.size,
        mode=ProvisionMode(data.get("mode", ProvisionMode.PLAN)),
        force_ratio=data.get("force") == "ratio",
        per_cent=asked.per_cent,
        all_but=asked.all_but,
    )


def _namespace(data: Mapping[str, Any]) -> NamespaceRequest:
    named = data["namespace"]
    return NamespaceRequest(
        name=data["name"],
        uuid=kinds.namespace_uuid(named["uuid"]) if "uuid" in named else "",
        consent=kinds.consent(data["consent"]) if "consent" in data else None,
        mode=ProvisionMode(data.get("mode", ProvisionMode.PLAN)),
        force_ratio=data.get("force") == "ratio",
        dimm=kinds.dimm_serial(named["dimm"]) if "dimm" in named else "",
    )


def _cxl_request(data: Mapping[str, Any]) -> CxlRequest:
    return CxlRequest(
        name=data["name"],
        serials=tuple(kinds.cxl_serial(serial) for serial in data["cxl"]["serials"]),
        size=kinds.amount(data["size"]).size,
        mode=ProvisionMode(data.get("mode", ProvisionMode.PLAN)),
        force_ratio=data.get("force") == "ratio",
    )
