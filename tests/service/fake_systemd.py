"""The part of systemd that sets the memory of units. Run by test_protect.py, never imported.

argv: ADDRESS. Its units are gold.slice, system.slice, in it db.service with nodes of its own, and vm.scope,
which takes nothing.
"""

from __future__ import annotations

import sys
from typing import Any

from gi.repository import Gio, GLib

UNIT = """
  <interface name="org.freedesktop.systemd1.{}">
    <property name="AllowedMemoryNodes" type="ay" access="read"/>
    <property name="MemoryMin" type="t" access="read"/>
  </interface>
"""
XML = f"""
<node>
  <interface name="org.freedesktop.systemd1.Manager">
    <method name="GetUnit"><arg type="s" direction="in"/><arg type="o" direction="out"/></method>
    <method name="SetUnitProperties">
      <arg type="s" direction="in"/><arg type="b" direction="in"/><arg type="a(sv)" direction="in"/>
    </method>
  </interface>
  {"".join(UNIT.format(kind) for kind in ("Slice", "Service", "Scope"))}
</node>
"""
ROOT = "/org/freedesktop/systemd1"
UNITS: dict[str, dict[str, Any]] = {
    "gold.slice": {"AllowedMemoryNodes": b"", "MemoryMin": 0},
    "system.slice": {"AllowedMemoryNodes": b"", "MemoryMin": 1 << 20},
    "db.service": {"AllowedMemoryNodes": b"\x03", "MemoryMin": 5 << 20},
    "vm.scope": {"AllowedMemoryNodes": b"", "MemoryMin": 0},
}


def path_of(unit: str) -> str:
    return f"{ROOT}/unit/{unit.replace('.', '_2e')}"


def call(_c: Any, _s: str, _path: str, _i: str, method: str, body: Any, invocation: Any) -> None:
    unit = body.unpack()[0]
    if unit not in UNITS:
        error = "org.freedesktop.systemd1.NoSuchUnit"
        invocation.return_dbus_error(error, f"Unit {unit} not loaded.")
    elif method == "GetUnit":
        invocation.return_value(GLib.Variant("(o)", (path_of(unit),)))
    elif unit == "vm.scope":
        invocation.return_dbus_error("org.freedesktop.DBus.Error.AccessDenied", "no\x1b")
    else:
        assert body.unpack()[1] is True, "until the next boot"
        UNITS[unit].update({name: value for name, value in body.unpack()[2]})
        invocation.return_value(None)


def get(_c: Any, _s: str, path: str, _i: str, name: str) -> Any:
    unit = next(unit for unit in UNITS if path_of(unit) == path)
    return GLib.Variant("ay" if name == "AllowedMemoryNodes" else "t", UNITS[unit][name])


def main() -> None:
    node = Gio.DBusNodeInfo.new_for_xml(XML)
    flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
    connection = Gio.DBusConnection.new_for_address_sync(sys.argv[1], flags, None, None)
    connection.register_object(ROOT, node.interfaces[0], call, None, None)
    for unit in UNITS:
        kind = unit.rpartition(".")[2].capitalize()
        interface = node.lookup_interface(f"org.freedesktop.systemd1.{kind}")
        connection.register_object(path_of(unit), interface, None, get, None)
    connection.call_sync(
        "org.freedesktop.DBus",
        "/org/freedesktop/DBus",
        "org.freedesktop.DBus",
        "RequestName",
        GLib.Variant("(su)", ("org.freedesktop.systemd1", 4)),
        None,
        Gio.DBusCallFlags.NONE,
        5000,
        None,
    )
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
