"""What systemd knows of the memory of its units, read and set over D-Bus (org.freedesktop.systemd1(5))."""

from __future__ import annotations

from typing import Any, Final

from gi.repository import Gio, GLib

from tierd.core.protection import UnitMemory
from tierd.errors import DeniedError, TierdError

_NAME: Final = "org.freedesktop.systemd1"
_PATH: Final = "/org/freedesktop/systemd1"
_MANAGER: Final = "org.freedesktop.systemd1.Manager"
_SECONDS: Final = 30
"""For an answer: systemd may be starting a hundred units."""


class Units:
    """Used by tierd-protect. address: of the bus, None for the system bus."""

    def __init__(self, address: str | None = None) -> None:
        """Raises TierdError without a bus."""
        flags = (
            Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
        )
        try:
            self._connection = (
                Gio.bus_get_sync(Gio.BusType.SYSTEM, None)
                if address is None
                else Gio.DBusConnection.new_for_address_sync(address, flags, None, None)
            )
        except GLib.Error as error:
            raise TierdError(f"the system bus cannot be reached: {error.message}") from error

    def read(self, unit: str) -> UnitMemory | None:
        """What is set for `unit`, a slice, a scope or a service; None when it is not loaded. Raises
        TierdError."""
        try:
            (path,) = self._call(_PATH, _MANAGER, "GetUnit", GLib.Variant("(s)", (unit,)))
        except _NoSuchUnit:
            return None
        interface = f"{_NAME}.{unit.rpartition('.')[2].capitalize()}"
        properties = "org.freedesktop.DBus.Properties"
        nodes, minimum = (
            self._call(path, properties, "Get", GLib.Variant("(ss)", (interface, name)))[0]
            for name in ("AllowedMemoryNodes", "MemoryMin")
        )
        return UnitMemory(nodes_of(bytes(nodes)), int(minimum))

    def set(self, unit: str, memory: UnitMemory) -> None:
        """Until the next boot. Raises TierdError."""
        values = [
            ("AllowedMemoryNodes", GLib.Variant("ay", mask_of(memory.nodes))),
            ("MemoryMin", GLib.Variant("t", memory.minimum)),
        ]
        body = GLib.Variant("(sba(sv))", (unit, True, values))
        self._call(_PATH, _MANAGER, "SetUnitProperties", body)

    def _call(self, path: str, interface: str, method: str, body: GLib.Variant) -> tuple[Any, ...]:
        try:
            reply = self._connection.call_sync(
                _NAME, path, interface, method, body, None, Gio.DBusCallFlags.NONE, 1000 * _SECONDS, None
            )
        except GLib.Error as error:
            name = Gio.DBusError.get_remote_error(error) or ""
            Gio.DBusError.strip_remote_error(error)
            if name.endswith(".NoSuchUnit"):
                raise _NoSuchUnit(error.message) from error
            kind = DeniedError if name.endswith((".AccessDenied", "AuthorizationRequired")) else TierdError
            raise kind(f"systemd, asked for {method}: {error.message}") from error
        return tuple(reply.unpack())


class _NoSuchUnit(TierdError):
    """systemd has no unit of this name loaded."""


def mask_of(nodes: frozenset[int]) -> bytes:
    """As systemd has sets of nodes: bit n of byte n / 8 for node n; nothing for no set."""
    return sum(1 << node for node in nodes).to_bytes(max(nodes, default=-8) // 8 + 1, "little")


def nodes_of(mask: bytes) -> frozenset[int]:
    """The nodes of `mask_of`."""
    return frozenset(bit for bit in range(8 * len(mask)) if mask[bit // 8] >> bit % 8 & 1)
