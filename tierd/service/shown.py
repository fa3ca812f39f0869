"""The properties of an object on the bus: ready values, and what of them is yet to be announced."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gi.repository import Gio, GLib

from tierd.errors import UnsupportedError

SIGNAL_SECONDS: Final = 0.95
"""A little less than the daemon's tick, so that a tick is never just too early."""

_EMITS_CHANGED: Final = "org.freedesktop.DBus.Property.EmitsChangedSignal"


def introspection_xml(interface: str) -> str:
    """The introspection XML of an interface of tierd. Raises UnsupportedError when the installation is
    incomplete."""
    path = Path(__file__).with_name(f"{interface}.xml")
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        hint = "install the package tierd again"
        raise UnsupportedError(f"{path} is missing: no D-Bus interface", hint=hint) from None


class Shown:
    """The properties of one object, for its adaptor. Main thread only.

    xml, interface: where their types are, and which of them the XML does not annotate as silent. values: of
    every property, in the types that GLib.Variant takes.
    """

    def __init__(self, xml: str, interface: str, values: Mapping[str, Any]) -> None:
        found = Gio.DBusNodeInfo.new_for_xml(xml).lookup_interface(interface).properties
        self._kinds = {prop.name: prop.signature for prop in found}
        quiet = {
            prop.name
            for prop in found
            for annotation in prop.annotations or ()
            if annotation.key == _EMITS_CHANGED and annotation.value != "true"
        }
        self._emitting = frozenset(self._kinds) - quiet
        self.begin(values)

    def begin(self, values: Mapping[str, Any]) -> None:
        """Take up the values of an object that appears: nothing of them is a change."""
        self.take(values)
        self._announced = self._announceable()
        self._looked_through = self.variants
        self._quiet_until = 0.0

    def take(self, values: Mapping[str, Any]) -> None:
        """Take up new values. Raises TypeError, ValueError or OverflowError, and keeps the older ones."""
        # All or nothing: a value that does not fit its type must not break the properties that do.
        variants = {name: GLib.Variant(kind, values[name]) for name, kind in self._kinds.items()}
        self._values, self.variants = values, variants

    def changes(self, now: float) -> dict[str, Any]:
        """What PropertiesChanged is to say, for the caller to send it: what changed since the last time, and
        nothing within a second of that. now: monotonic seconds."""
        if now < self._quiet_until or self.variants is self._looked_through:
            return {}
        self._looked_through = self.variants
        current = self._announceable()
        changed = {
            name: self._values[name] for name, shown in current.items() if shown != self._announced[name]
        }
        if changed:
            self._announced = current
            self._quiet_until = now + SIGNAL_SECONDS
        return changed

    def _announceable(self) -> dict[str, str]:
        return {name: self.variants[name].print_(False) for name in self._emitting}
