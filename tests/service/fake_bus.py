"""An object with all the vices of D-Bus services, behind the shim. Run by test_bus.py, never imported.

argv: ADDRESS, and the user who may do everything. Prints a line for every change of connection and every
unexpected error.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from gi.repository import GLib

from tierd.errors import ConfigError, DeniedError, GoneError, TierdError
from tierd.service.authority import Authority, Caller
from tierd.service.bus import BusService, Exported, authorised, for_caller, slow
from tierd.service.mailbox import Mailbox

XML = """
<node><interface name="org.tierd1.Test">
  <property name="Good" type="s" access="read"/>
  <method name="Fast"><arg type="s" direction="out"/></method>
  <method name="Slow"><arg type="d" direction="in"/></method>
  <method name="Two"><arg type="s" direction="out"/><arg type="u" direction="out"/></method>
  <method name="Ready"><arg type="as" direction="out"/></method>
  <method name="Raise"><arg type="s" direction="in"/></method>
  <method name="RaiseSlowly"><arg type="s" direction="in"/></method>
  <method name="Guarded"><arg type="s" direction="out"/></method>
  <method name="GuardedSlowly"><arg type="d" direction="in"/></method>
  <method name="Told">
    <arg type="s" direction="in"/><arg type="u" direction="out"/><arg type="s" direction="out"/>
  </method>
  <method name="WrongType"><arg type="s" direction="out"/></method>
</interface></node>
"""


class Vices:
    """Plain, hashable, and without a base class, as pydbus wants it."""

    def dbus_properties(self) -> dict[str, Any]:
        return {"Good": GLib.Variant("s", "good")}

    def Fast(self) -> str:
        return "fast"

    @slow
    def Slow(self, seconds: float) -> None:
        time.sleep(seconds)

    def Two(self) -> tuple[str, int]:
        return "two", 2

    def Ready(self) -> Any:
        return GLib.Variant("(as)", (["ready"],))

    def Raise(self, kind: str) -> None:
        raise {
            "failed": TierdError("it failed", hint="try harder"),
            "gone": GoneError("no such cgroup"),
            "denied": DeniedError("not allowed"),
            "policy": ConfigError(("a.yaml:1:1: x: wrong", "a.yaml:2:1: y: wrong too")),
            "surrogate": TierdError("process b\udcff\x1b[31mad\x00 is gone"),
            "value": ValueError("secret"),
            "long": TierdError("x" * 100_000),
            "exit": SystemExit(3),
            "interrupt": KeyboardInterrupt(),
        }[kind]

    @slow
    def RaiseSlowly(self, kind: str) -> None:
        self.Raise(kind)

    @authorised("org.tierd1.test")
    def Guarded(self) -> str:
        return "done"

    @authorised("org.tierd1.test")
    @slow
    def GuardedSlowly(self, seconds: float) -> None:
        time.sleep(seconds)

    @for_caller("org.tierd1.test")
    @slow
    def Told(self, caller: Caller, given: str) -> tuple[int | None, str]:
        return caller.user, f"{given}: {caller.refusal or 'may'}"

    def WrongType(self) -> Any:
        return 5


def main() -> None:
    loop = GLib.MainLoop()
    service = BusService(
        "org.tierd1.Test",
        (Exported("/org/tierd1/Test", XML, Vices()),),
        mailbox=Mailbox(),
        on_change=lambda connected, reason: print(f"connected {connected} {reason}", flush=True),
        on_error=lambda error: print(f"error {type(error).__name__}", flush=True),
        address=sys.argv[1],
        authority=Authority(trusted=int(sys.argv[2]) if sys.argv[2:] else 0),
    )
    service.start()
    loop.run()


if __name__ == "__main__":
    main()
