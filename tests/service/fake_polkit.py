"""The part of polkit that says who may do what. Run by test_authority.py, never imported.

argv: ADDRESS MODE. yes, no and password are its answers; silent never gives one. Prints what it is asked.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from gi.repository import Gio, GLib

XML = """
<node><interface name="org.freedesktop.PolicyKit1.Authority">
  <method name="CheckAuthorization">
    <arg type="(sa{sv})" direction="in"/><arg type="s" direction="in"/><arg type="a{ss}" direction="in"/>
    <arg type="u" direction="in"/><arg type="s" direction="in"/><arg type="(bba{ss})" direction="out"/>
  </method>
</interface></node>
"""
NAME, PATH = "org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority"


def main() -> None:
    address, mode = sys.argv[1:]
    flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
    connection = Gio.DBusConnection.new_for_address_sync(address, flags, None, None)

    def call(_c: Any, _s: str, _p: str, _i: str, _method: str, body: Any, invocation: Any) -> None:
        (kind, facts), action, _, asked, _ = body.unpack()
        print(json.dumps([kind, sorted(facts), action, asked]), flush=True)
        if mode != "silent":
            answer = (mode == "yes", mode == "password", {})
            invocation.return_value(GLib.Variant("((bba{ss}))", (answer,)))

    connection.register_object(PATH, Gio.DBusNodeInfo.new_for_xml(XML).interfaces[0], call, None, None)
    connection.call_sync(
        *("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "RequestName"),
        *(GLib.Variant("(su)", (NAME, 4)), None, Gio.DBusCallFlags.NONE, 5000, None),
    )
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
