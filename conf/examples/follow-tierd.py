#!/usr/bin/python3
"""Follow tierd from another service: its state, and the promises of its service classes.

Prints a line for each change; a scheduler would stop placing customers here, a monitor would call somebody.
Needs python3-gi, and no rights: reading is open to all. org.tierd1(5) describes the interface.
"""

from gi.repository import Gio, GLib

NAME, PATH, INTERFACE = "org.tierd1", "/org/tierd1", "org.tierd1.Manager"


def say(line):
    print(line, flush=True)


class Follower:
    def __init__(self):
        # The proxy follows the name: it reads all properties again whenever tierd comes back.
        flags = Gio.DBusProxyFlags.DO_NOT_AUTO_START
        self.proxy = Gio.DBusProxy.new_for_bus_sync(
            Gio.BusType.SYSTEM, flags, None, NAME, PATH, INTERFACE, None
        )
        self.proxy.connect("notify::g-name-owner", lambda proxy, _: self.look())
        self.proxy.connect(
            "g-properties-changed", lambda proxy, changed, gone: self.changed(changed.unpack())
        )
        self.proxy.connect(
            "g-signal", lambda proxy, sender, name, values: self.signal(name, values.unpack())
        )
        self.look()

    def look(self):
        """What there is now: when this begins, and whenever tierd comes or goes."""
        if self.proxy.get_name_owner() is None:
            return say("tierd does not run")
        self.changed({"State": self.get("State"), "ConfigState": self.get("ConfigState")})
        for found in self.get("Classes"):
            self.promise(found["Name"], not found["Broken"], found["Broken"])

    def get(self, name):
        """Asked of tierd each time: Classes is never announced, so the proxy would keep an old one."""
        body = GLib.Variant("(ss)", (INTERFACE, name))
        method = "org.freedesktop.DBus.Properties.Get"
        return self.proxy.call_sync(method, body, Gio.DBusCallFlags.NONE, 5000, None).unpack()[0]

    def changed(self, values):
        if "State" in values:
            say(f"tierd is {values['State']}")
        if values.get("ConfigState") == "rejected":
            say("the policy file was refused, and an older policy is in force")

    def signal(self, name, values):
        if name == "PromiseChanged":
            self.promise(*values)

    def promise(self, name, kept, words):
        say(f"class {name} has what it is promised" if kept else words)


if __name__ == "__main__":
    follower = Follower()
    GLib.MainLoop().run()
