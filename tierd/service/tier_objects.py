"""Each memory tier as an object on the bus, which comes and goes with the tier.

pydbus never lets go of an adaptor: one whose tier has gone waits here for the next tier that appears, so
that there are as many as there were tiers at a time, however often they come and go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from gi.repository import Gio
from pydbus.generic import signal

from tierd.core.model import Topology
from tierd.service.bus import Exported
from tierd.service.bus_values import tier_properties
from tierd.service.shown import Shown

INTERFACE: Final = "org.tierd1.Tier"
OBJECT_MANAGER: Final = "org.freedesktop.DBus.ObjectManager"
OBJECT_MANAGER_XML: Final = """
<node>
  <interface name="org.freedesktop.DBus.ObjectManager">
    <method name="GetManagedObjects">
      <arg name="objects" type="a{oa{sa{sv}}}" direction="out"/>
    </method>
    <signal name="InterfacesAdded">
      <arg name="object" type="o"/>
      <arg name="interfaces" type="a{sa{sv}}"/>
    </signal>
    <signal name="InterfacesRemoved">
      <arg name="object" type="o"/>
      <arg name="interfaces" type="as"/>
    </signal>
  </interface>
</node>
"""
MOST_TIERS: Final = 64
"""Objects at a time. The kernel makes a tier for each kind of memory: machines have two to four."""

_PARENT: Final = "/org/tierd1/tier"


def object_path(tier: str) -> str:
    """Of the tier of that name: ``memory_tier4`` is /org/tierd1/tier/memory_5ftier4, as
    sd_bus_path_encode(3) has it."""
    return f"{_PARENT}/{Gio.dbus_escape_object_path(tier)}"


class Publisher(Protocol):
    """As BusService is."""

    def publish(self, exported: Exported) -> None: ...

    def withdraw(self, exported: Exported) -> None: ...


class TierObject:
    """The adaptor behind a tier. Main thread only."""

    PropertiesChanged = signal()

    def __init__(self, shown: Shown) -> None:
        self.shown = shown

    def dbus_properties(self) -> Mapping[str, Any]:
        return self.shown.variants

    def announce(self, now: float) -> None:
        """Send PropertiesChanged for what changed since the last one, at most once a second."""
        changed = self.shown.changes(now)
        if changed:
            self.PropertiesChanged(INTERFACE, changed, [])


class TierObjects:
    """The tiers that there are, and the ObjectManager at /org/tierd1 that tells of them. Main thread only.

    xml: of the interface of a tier.
    """

    InterfacesAdded = signal()
    InterfacesRemoved = signal()

    def __init__(self, xml: str) -> None:
        self._xml = xml
        self._there: dict[str, Exported] = {}
        self._unused: list[TierObject] = []

    def dbus_properties(self) -> Mapping[str, Any]:
        return {}

    def GetManagedObjects(self) -> dict[str, dict[str, Mapping[str, Any]]]:
        return {path: self._interfaces(exported) for path, exported in self._there.items()}

    def show(self, topology: Topology, bus: Publisher, now: float) -> None:
        """Have an object for each tier of `topology` on `bus`, and for no other. now: monotonic seconds.

        Raises what Shown.take does; the tiers after that one are as they were.
        """
        found = {object_path(tier.name): tier for tier in topology.tiers[:MOST_TIERS]}
        for path in [path for path in self._there if path not in found]:
            exported = self._there.pop(path)
            bus.withdraw(exported)
            self._unused.append(exported.adaptor)
            self.InterfacesRemoved(path, [INTERFACE])
        for path, tier in found.items():
            values = tier_properties(tier, topology.caches)
            if (known := self._there.get(path)) is not None:
                known.adaptor.shown.take(values)
            else:
                self._add(path, values, bus)
        self.announce(now)

    def announce(self, now: float) -> None:
        """Send each tier's PropertiesChanged that is due."""
        for exported in self._there.values():
            exported.adaptor.announce(now)

    def _add(self, path: str, values: Mapping[str, Any], bus: Publisher) -> None:
        if self._unused:
            self._unused[-1].shown.begin(values)
            adaptor = self._unused.pop()
        else:
            adaptor = TierObject(Shown(self._xml, INTERFACE, values))
        self._there[path] = exported = Exported(path, self._xml, adaptor)
        bus.publish(exported)
        self.InterfacesAdded(path, self._interfaces(exported))

    def _interfaces(self, exported: Exported) -> dict[str, Mapping[str, Any]]:
        return {INTERFACE: exported.adaptor.dbus_properties()}
