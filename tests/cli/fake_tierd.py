"""A stand-in for the daemon on a bus. Run by test_tierctl.py, never imported.

argv: ADDRESS MODE; MODE is ``good``, ``silent`` (never answers) or the name of an error to answer with.
Prints a line when it holds the name.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from gi.repository import Gio, GLib

XML = Path(__file__).parents[2] / "conf/dbus/org.tierd1.xml"
GIB, MIB = 1 << 30, 1 << 20
TIERS = [
    {
        "Name": GLib.Variant("s", "memory_tier4"),
        "Kind": GLib.Variant("s", "dram"),
        "Nodes": GLib.Variant("au", [0]),
        "TotalBytes": GLib.Variant("t", 2 * GIB),
        "FreeBytes": GLib.Variant("t", GIB // 2),
        "UsedBytes": GLib.Variant("t", 3 * GIB // 2),
        "ReadLatencyNanoseconds": GLib.Variant("u", 80),
    },
    {
        "Name": GLib.Variant("s", "memory_tier56"),
        "Kind": GLib.Variant("s", "slow"),
        "Nodes": GLib.Variant("au", [1, 2]),
        "TotalBytes": GLib.Variant("t", 4 * GIB),
        "FreeBytes": GLib.Variant("t", 4 * GIB),
        "UsedBytes": GLib.Variant("t", 0),
    },
]
VALUES: dict[str, Any] = {
    "Version": "0.1.0",
    "State": "converging",
    "Reason": "",
    "StatusText": "placing: 2 tiers",
    "Source": "hint-faults",
    "SourceReason": "page-exact",
    "ConfigState": "rejected",
    "ConfigProblems": ["/etc/tierd/tierd.yaml:3:1: engin: unknown key"],
    "PolicyOrigin": "/etc/tierd/tierd.yaml",
    "PolicyDigest": "0123456789abcdef",
    "HostedProcesses": 3,
    "HostedCgroups": 2,
    "PlacedDramBytes": GIB,
    "PlacedSlowBytes": GIB,
    "BytesPerSecond": 12e6,
    "Counters": {"PromotedPages": GLib.Variant("t", 105472), "MoveSeconds": GLib.Variant("d", 0.5)},
    "LastRoundTime": 1796071200.5,
    "OwnCost": {"CpuSeconds": GLib.Variant("d", 12.5), "ResidentBytes": GLib.Variant("t", 60 << 20)},
    "Tiers": TIERS,
    "Classes": [
        {
            "Name": GLib.Variant("s", name),
            "Promise": GLib.Variant("s", promise),
            "Priority": GLib.Variant("i", 0),
            "Processes": GLib.Variant("u", 2),
            "DramBytes": GLib.Variant("t", GIB // 2),
            "SlowBytes": GLib.Variant("t", GIB // 2),
            "LeastBytes": GLib.Variant("t", least),
            "MostBytes": GLib.Variant("t", GIB),
            "PromotedPages": GLib.Variant("t", 7),
            "DemotedPages": GLib.Variant("t", 0),
            "Broken": GLib.Variant("s", broken),
            "Odd": GLib.Variant("s", odd),
        }
        for name, promise, least, broken, odd in (
            ("gold", "guaranteed", GIB, "class gold (guaranteed) lacks 512 MiB\x1b[2J", ""),
            ("default", "", 0, "", "p.yaml:9:5: classes[0]: warning: class default has no process"),
        )
    ],
    "Notices": ["region1: 512 MiB free, which no request names"],
    "Missing": ["DAMON: large regions are found later; boot with CONFIG_DAMON"],
}
EXPLANATION = {
    "Pid": GLib.Variant("u", 4711),
    "Uid": GLib.Variant("u", 105),
    "Command": GLib.Variant("s", "postgres"),
    "Cgroup": GLib.Variant("s", "/gold.slice/db.service"),
    "Class": GLib.Variant("s", "gold"),
    "Rule": GLib.Variant("s", "class gold, by classes[0].match[0] (unit: gold.slice)"),
    "Promise": GLib.Variant("s", "guaranteed"),
    "Nodes": GLib.Variant(
        "aa{sv}",
        [
            {"Node": GLib.Variant("u", 0), "Bytes": GLib.Variant("t", GIB)},
            {"Node": GLib.Variant("u", 1), "Bytes": GLib.Variant("t", 8192)},
        ],
    ),
    "Placed": GLib.Variant("b", True),
    "WhyNot": GLib.Variant("s", ""),
    "Fates": GLib.Variant("as", ["3 s ago: 768 pages came up, used 4 to 30 times a second"]),
}
PROCESSES = [
    {
        "Pid": GLib.Variant("u", pid),
        "Uid": GLib.Variant("u", 105),
        "Class": GLib.Variant("s", "gold"),
        "Cgroup": GLib.Variant("s", cgroup),
        "ResidentBytes": GLib.Variant("t", GIB),
        "Placed": GLib.Variant("b", not missing),
        **({} if missing else {"DramBytes": GLib.Variant("t", GIB * 3 // 4)}),
        **({} if missing else {"SlowBytes": GLib.Variant("t", GIB // 4)}),
    }
    for pid, cgroup, missing in ((4711, "/gold.slice/db.service", False), (7, "/x\x1b[2J", True))
]
PLAN = [
    {
        "Action": GLib.Variant("s", "promote"),
        "Subject": GLib.Variant("s", "/system.slice/db.service"),
        "Pages": GLib.Variant("t", 1024),
        "SourceNode": GLib.Variant("i", 1),
        "TargetNode": GLib.Variant("i", 0),
        "Reason": GLib.Variant("s", "hot: 12 accesses a second"),
    }
]
HISTORY = [
    {
        "Time": GLib.Variant("d", 1.79e9 + 10 * step),
        "State": GLib.Variant("s", "converging"),
        "PromotedBytes": GLib.Variant("t", 3 * GIB >> step),
        "DemotedBytes": GLib.Variant("t", GIB >> step),
        "PlacedDramBytes": GLib.Variant("t", GIB // 2 + step * GIB // 100),
        "PlacedSlowBytes": GLib.Variant("t", GIB),
        "TierUsedBytes": GLib.Variant("a{st}", {"memory_tier4": GIB, "memory_tier56": step * GIB // 20}),
        "TierTotalBytes": GLib.Variant("a{st}", {"memory_tier4": 2 * GIB, "memory_tier56": 4 * GIB}),
        "ClassDramBytes": GLib.Variant("a{st}", {}),
        "ClassSlowBytes": GLib.Variant("a{st}", {}),
    }
    for step in range(30)
]


def heat(pid: int, bins: int) -> tuple[str, Any]:
    """An error's name, or none, and what is answered."""
    if pid == 7:
        return "org.tierd1.Error.NoSuchObject", "process 7\x1b[2J has ended"
    if pid == 8:
        return "org.tierd1.Error.Failed", "tierd does not place process 8: the policy does not select it"
    rows = []
    for number in range(min(bins, 64)):
        row = {
            "Start": GLib.Variant("t", 0x7F0000000000 + number * MIB + (number > 40) * GIB),
            "End": GLib.Variant("t", 0x7F0000000000 + (number + 1) * MIB + (number > 40) * GIB),
            "KnownPages": GLib.Variant("t", number % 16),
            "RememberedPages": GLib.Variant("t", number % 16 if number > 50 else 0),
            "Pages": GLib.Variant("t", 256 if number > 2 else 0),
            "DramPages": GLib.Variant("t", 4 * number if number > 2 else 0),
        }
        rows.append(row | ({"Rate": GLib.Variant("d", 0.1 * number)} if number % 16 else {}))
    return "", GLib.Variant("(aa{sv})", (rows,))


def main() -> None:
    address, mode = sys.argv[1:]
    interface = Gio.DBusNodeInfo.new_for_xml(XML.read_text()).lookup_interface("org.tierd1.Manager")
    flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
    connection = Gio.DBusConnection.new_for_address_sync(address, flags, None, None)

    def call(_c: Any, _s: str, _p: str, _i: str, method: str, _a: Any, invocation: Any) -> None:
        if mode == "silent":
            return
        if mode != "good":
            invocation.return_dbus_error(mode, "the reason\x1b[2J given")
        elif method == "Explain":
            invocation.return_value(GLib.Variant("(a{sv})", (EXPLANATION,)))
        elif method == "ListProcesses":
            keys, limit = _a.unpack()
            print(json.dumps([keys, limit]), flush=True)
            invocation.return_value(GLib.Variant("(aa{sv})", (PROCESSES[:limit],)))
        elif method == "GetHistory":
            (seconds,) = _a.unpack()
            invocation.return_value(GLib.Variant("(aa{sv})", (HISTORY[: seconds // 10],)))
        elif method == "GetHeat":
            refused, answer = heat(*_a.unpack())
            if refused:
                invocation.return_dbus_error(refused, answer)
            else:
                invocation.return_value(answer)
        elif method in ("Pause", "Resume", "Reload"):
            print(method, *_a.unpack(), flush=True)
            invocation.return_value(None)
        elif method == "GetAll":
            kinds = {p.name: p.signature for p in interface.properties}
            values = {name: GLib.Variant(kind, VALUES[name]) for name, kind in kinds.items()}
            invocation.return_value(GLib.Variant("(a{sv})", (values,)))
        else:
            invocation.return_value(GLib.Variant("(aa{sv})", (PLAN,)))

    connection.register_object("/org/tierd1", interface, call, None, None)
    connection.call_sync(
        "org.freedesktop.DBus",
        "/org/freedesktop/DBus",
        "org.freedesktop.DBus",
        "RequestName",
        GLib.Variant("(su)", ("org.tierd1", 4)),
        None,
        Gio.DBusCallFlags.NONE,
        5000,
        None,
    )
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
