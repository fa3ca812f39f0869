"""What pydbus asks of the objects behind the bus, and finds wanting only when it publishes or emits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from gi.repository import Gio
from pydbus.generic import signal

from tests.service.conftest import ROOT
from tierd.service import interface, log_control, tier_objects
from tierd.service.shown import introspection_xml

ADAPTORS: tuple[tuple[type, str], ...] = (
    (interface.Manager, introspection_xml(interface.BUS_NAME)),
    (tier_objects.TierObject, introspection_xml(tier_objects.INTERFACE)),
    (tier_objects.TierObjects, tier_objects.OBJECT_MANAGER_XML),
    (log_control.LogControl, log_control.XML),
)


def faults(adaptor: type, xml: str) -> Iterator[str]:
    """What of the interfaces in `xml` it lacks, and what pydbus cannot do with it."""
    if adaptor.__hash__ is not object.__hash__ or adaptor.__eq__ is not object.__eq__:
        yield "is no key of a dictionary by itself, as pydbus and BusService.publish have it"
    for found in Gio.DBusNodeInfo.new_for_xml(xml).interfaces:
        for method in found.methods:
            if not callable(getattr(adaptor, method.name, None)):
                yield f"has no method {method.name}"
        for emitted in found.signals:
            if not isinstance(vars(adaptor).get(emitted.name), signal):
                yield f"has no signal {emitted.name}"
        settable = [known for known in found.properties if known.flags & Gio.DBusPropertyInfoFlags.WRITABLE]
        if settable and not hasattr(adaptor, "dbus_set"):
            yield "has no dbus_set"
        if found.properties and not hasattr(adaptor, "dbus_properties"):
            yield "has no dbus_properties"


@pytest.mark.parametrize(("adaptor", "xml"), ADAPTORS, ids=lambda one: getattr(one, "__name__", ""))
def test_an_adaptor_has_what_its_interfaces_say(adaptor: type, xml: str) -> None:
    assert list(faults(adaptor, xml)) == []


def test_every_object_on_the_bus_is_held_against_its_interface() -> None:
    source = [path.read_text(encoding="utf-8") for path in (ROOT / "tierd/service").glob("*.py")]
    assert sum(text.count(" Exported(") for text in source) == len(ADAPTORS)


@dataclass
class Unhashable:
    """An object of value: two of them may be equal."""

    changed: Any = None


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ('<signal name="Changed"/>', "has no signal Changed"),
        ('<method name="Do"/>', "has no method Do"),
        ('<property name="Level" type="s" access="readwrite"/>', "has no dbus_set"),
    ],
)
def test_an_adaptor_that_lacks_a_member_is_seen(members: str, told: str) -> None:
    xml = f'<node><interface name="org.tierd1.Test">{members}</interface></node>'
    assert told in list(faults(type("Empty", (), {"Changed": None}), xml))
    key = list(faults(Unhashable, xml))[0]
    assert key.startswith("is no key")
