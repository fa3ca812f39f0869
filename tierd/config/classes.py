"""The section `classes` of a policy: what is wrong between several of its values, what is odd, and what it
means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tierd.config import class_kinds, kinds
from tierd.config.document import Document
from tierd.config.report import Location, Mark, Report, shown_location
from tierd.config.users import user_ids
from tierd.core.classes import (
    DEFAULT_CLASS,
    DEFAULT_NAME,
    ClassRule,
    DramBound,
    DramShare,
    Place,
    ServiceClass,
)
from tierd.core.units import parse_rate

_EVERYTHING = {"cgroup": ("*", "/*"), "command": ("*",)}
"""Globs that every process matches."""

_HOW_TO_MATCH = "write a list such as [{unit: postgresql.service}]"


def cross_check(document: Document, report: Report) -> None:
    """Adds to `report` what is wrong within and between classes; tolerates any shape. Raises nothing."""
    first: dict[str, Mark] = {}
    for index, entry in _entries(document):
        _check_name(entry, ("classes", index), document, report, first)
        _check_match(entry, ("classes", index), document, report)
        _check_dram(entry, ("classes", index), document, report)


def _entries(document: Document) -> Iterator[tuple[int, Mapping[str, Any]]]:
    section = document.data.get("classes") if isinstance(document.data, dict) else None
    items: list[object] = section if isinstance(section, list) else []
    return ((index, item) for index, item in enumerate(items) if isinstance(item, dict))


def _check_name(
    entry: Mapping[str, Any], location: Location, document: Document, report: Report, first: dict[str, Mark]
) -> None:
    name = entry.get("name")
    if not isinstance(name, str):
        return
    mark = document.values[*location, "name"]
    if name in first:
        message = f"this name is already used on line {first[name].line}; give each class its own"
        report.add(mark, (*location, "name"), message)
    first.setdefault(name, mark)


def _check_match(entry: Mapping[str, Any], location: Location, document: Document, report: Report) -> None:
    """Only the class `default` has no rules, and it has none: it is what the others leave."""
    if entry.get("name") == DEFAULT_NAME:
        if "match" in entry:
            message = (
                "the class default is what no rule matches, and has no rules; remove match, or give the"
                " class another name"
            )
            report.add(document.keys[*location, "match"], (*location, "match"), message)
    elif "match" not in entry and document.complete:
        message = f"the key `match` is missing, and only the class default has none; {_HOW_TO_MATCH}"
        report.add(document.values[location], location, message)


def _check_dram(entry: Mapping[str, Any], location: Location, document: Document, report: Report) -> None:
    dram = entry.get("dram")
    location = (*location, "dram")
    if dram == "guaranteed" and entry.get("name") == DEFAULT_NAME:
        message = (
            "DRAM cannot be guaranteed to the class default, which grows with whatever is started; give the"
            " processes that need it a class of their own"
        )
        report.add(document.values[location], location, message)
    if not isinstance(dram, dict):
        return
    try:
        least, most = (kinds.read("dram_bound", dram.get(key)) for key in ("min", "max"))
    except ValueError:
        return
    assert isinstance(least, DramBound) and isinstance(most, DramBound)
    sizes = (least.size, most.size), (least.per_cent, most.per_cent)
    if any(low is not None and high is not None and low > high for low, high in sizes):
        line = document.values[*location, "max"].line
        message = f"`{least.words}` is more than max, which is {most.words} on line {line}; lower it"
        report.add(document.values[*location, "min"], (*location, "min"), message)


def warn(document: Document, report: Report) -> None:
    """Notes what is odd about the classes of a policy that has no error: users who do not exist, and rules
    that never match, because an earlier one takes all that they would."""
    rules = [
        (("classes", index, "match", number, key), key, kinds.read(key, value))
        for index, entry in _entries(document)
        for number, rule in enumerate(entry.get("match", ()))
        for key, value in rule.items()
    ]
    ids = user_ids(value for _, key, value in rules if key == "user" and isinstance(value, str))
    first: dict[tuple[str, object], Location] = {}
    for location, key, value in rules:
        mark = document.values[location]
        if key == "user" and isinstance(value, str):
            if value not in ids:
                message = f"there is no user `{value}` now; the rule matches once there is one"
                report.warn(mark, location, message)
            value = ids.get(value, value)
        earlier = first.setdefault((key, value), location)
        if earlier is not location:
            place = document.values[earlier]
            message = (
                f"this rule never matches: the same is at line {place.line}, column {place.column}"
                f" ({shown_location(earlier[:-1])}), and the first one decides; remove one of them"
            )
            report.warn(mark, location, message)
        elif value in _EVERYTHING.get(key, ()) and location != rules[-1][0]:
            message = (
                "this rule matches every process, so that none after it ever does; put it last, or leave"
                " the rest to the class default"
            )
            report.warn(mark, location, message)


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the values of a document stand."""

    document: Document
    file: str

    def at(self, location: Location) -> Place:
        mark = self.document.values[location]
        return Place(mark.line, mark.column, shown_location(location), self.file)


def build(document: Document, file: str) -> tuple[ServiceClass, ...]:
    """The classes of a document that has passed the checks, `default` last. file: in which they stand."""
    places = _Places(document, file)
    found = [_class(entry, ("classes", index), places) for index, entry in _entries(document)]
    named = [service_class for service_class in found if service_class.name != DEFAULT_NAME]
    rest = [service_class for service_class in found if service_class.name == DEFAULT_NAME]
    return (*named, *(rest or [DEFAULT_CLASS]))


def _class(entry: Mapping[str, Any], location: Location, places: _Places) -> ServiceClass:
    rules = enumerate(entry.get("match", ()))
    return ServiceClass(
        name=entry["name"],
        match=tuple(_rule(rule, (*location, "match", number), places) for number, rule in rules),
        dram=_dram(entry["dram"], (*location, "dram"), places) if "dram" in entry else DramShare(),
        priority=entry.get("priority", 0),
        bandwidth=parse_rate(entry["bandwidth"]) if "bandwidth" in entry else None,
        place=places.at(location),
    )


def _rule(rule: Mapping[str, Any], location: Location, places: _Places) -> ClassRule:
    values: dict[str, Any] = {key: kinds.read(key, value) for key, value in rule.items()}
    return ClassRule(**values, place=places.at(location))


def _dram(value: str | Mapping[str, str], location: Location, places: _Places) -> DramShare:
    place = places.at(location)
    if isinstance(value, str):
        return DramShare(guaranteed=True, place=place)
    bounds = {key: class_kinds.dram_bound(bound) for key, bound in value.items()}
    return DramShare(False, bounds.get("min"), bounds.get("max"), place)
