"""What org.tierd1 shows: the newest state as D-Bus values. conf/dbus/org.tierd1.xml alone says its shape."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gi.repository import Gio, GLib
from pydbus.generic import signal

from tierd import __version__
from tierd.core.memory_side_cache import MemorySideCache, cache_words
from tierd.core.model import Tier
from tierd.core.state import ClassState, Counters, PlanLine, State
from tierd.core.text import clean
from tierd.errors import TierdError, UnsupportedError
from tierd.service.bus import authorised, slow
from tierd.service.events import status_line
from tierd.service.explaining import Explanation

BUS_NAME = "org.tierd1"
OBJECT_PATH = "/org/tierd1"
INTERFACE = "org.tierd1.Manager"

PLAN_ROWS = 500
"""Rows of one GetPlan reply; with lines of at most 256 characters the reply stays well below 1 MB."""
CLASS_ROWS = 200
SIGNAL_SECONDS = 0.95
"""A little less than the daemon's tick, so that a tick is never just too early."""
LONGEST_PAUSE = 24 * 3600
"""Seconds. A pause that nobody ends ends by itself: memory that is never placed again is a fault that nobody
sees."""
RELOAD_SECONDS = 20.0
"""Less than the 25 s that D-Bus clients wait by default, so that the caller hears an answer."""

EMITS_CHANGED = "org.freedesktop.DBus.Property.EmitsChangedSignal"


class TimedOutError(TierdError):
    """Asked for something that did not happen in time."""

    dbus_name = "org.tierd1.Error.TimedOut"


class InvalidError(TierdError):
    """An argument that no call of this method takes."""

    dbus_name = "org.tierd1.Error.InvalidArgument"


def interface_xml() -> str:
    """The interface's introspection XML. Raises UnsupportedError when the installation lacks it."""
    name = "org.tierd1.xml"
    candidates = (
        Path(__file__).resolve().parents[2] / "conf/dbus" / name,
        Path(sys.prefix) / "share/dbus-1/interfaces" / name,
        Path("/usr/share/dbus-1/interfaces") / name,
    )
    for path in candidates:
        try:
            return path.read_text(encoding="utf-8")
        except OSError:
            continue
    raise UnsupportedError(
        f"{candidates[-1]} is missing: no D-Bus interface", hint="install the package tierd again"
    )


@dataclass(frozen=True, slots=True)
class View:
    """All that the properties are made of. Built by the daemon after each round and each reload.

    config_problems: the faults of the policy file at the last reload; empty when that file is in force.
    notices: what an operator should know of the devices.
    """

    state: State
    config_problems: tuple[str, ...] = ()
    policy_origin: str = ""
    policy_digest: str = ""
    notices: tuple[str, ...] = ()


def status_text(view: View) -> str:
    """The line of StatusText and of `systemctl status`."""
    prefix = "policy file refused, older policy in force; " if view.config_problems else ""
    return clean(prefix + status_line(view.state))


def properties(view: View) -> dict[str, Any]:
    """A value for every property of the interface, in the types that GLib.Variant takes."""
    state = view.state
    return {
        "Version": __version__,
        "State": state.engine.value,
        "Reason": clean(state.reason),
        "StatusText": status_text(view),
        "Source": clean(state.source),
        "SourceReason": clean(state.source_reason, 512),
        "ConfigState": "rejected" if view.config_problems else "current",
        "ConfigProblems": [clean(problem, 1024) for problem in view.config_problems[:100]],
        "PolicyOrigin": clean(view.policy_origin, 4096),
        "PolicyDigest": view.policy_digest,
        "HostedProcesses": state.processes,
        "HostedCgroups": state.cgroups,
        "PlacedDramBytes": state.dram_bytes,
        "PlacedSlowBytes": state.slow_bytes,
        "BytesPerSecond": float(state.bytes_per_second),
        "Counters": _counters(state.counters),
        "Tiers": [_tier(tier, state.topology.caches) for tier in state.topology.tiers],
        "Classes": [_class(found) for found in state.classes[:CLASS_ROWS]],
        "Notices": [clean(notice, 512) for notice in view.notices[:100]],
        "Missing": [clean(str(missing), 512) for missing in state.missing],
    }


def plan_rows(state: State) -> list[dict[str, Any]]:
    """The last plan, as GetPlan answers it."""
    return [_plan_line(line) for line in state.plan[:PLAN_ROWS]]


def _counters(counters: Counters) -> dict[str, Any]:
    values = ((field.name, getattr(counters, field.name)) for field in fields(counters))
    return {
        _camel(name): GLib.Variant("d" if isinstance(value, float) else "t", value) for name, value in values
    }


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _tier(tier: Tier, caches: tuple[MemorySideCache, ...]) -> dict[str, Any]:
    # Of several nodes, the slowest: what a reader can rely on.
    latencies = [node.read_latency for node in tier.nodes if node.read_latency is not None]
    values: dict[str, Any] = {
        "Name": GLib.Variant("s", clean(tier.name)),
        "Kind": GLib.Variant("s", tier.kind.value),
        "Nodes": GLib.Variant("au", [node.number for node in tier.nodes]),
        "TotalBytes": GLib.Variant("t", tier.total),
        "FreeBytes": GLib.Variant("t", tier.free),
        "UsedBytes": GLib.Variant("t", max(tier.total - tier.free, 0)),
    }
    nodes = {node.number for node in tier.nodes}
    if words := [clean(cache_words(cache), 512) for cache in caches if cache.node in nodes]:
        values["MemorySideCaches"] = GLib.Variant("as", words)
    if latencies:
        values["ReadLatencyNanoseconds"] = GLib.Variant("u", round(max(latencies)))
    return values


def _class(found: ClassState) -> dict[str, Any]:
    return {
        "Name": GLib.Variant("s", clean(found.name)),
        "Promise": GLib.Variant("s", clean(found.promise)),
        "Priority": GLib.Variant("i", found.priority),
        "Processes": GLib.Variant("u", found.processes),
        "DramBytes": GLib.Variant("t", found.dram_bytes),
        "SlowBytes": GLib.Variant("t", found.slow_bytes),
        "LeastBytes": GLib.Variant("t", found.least_bytes),
        "MostBytes": GLib.Variant("t", found.most_bytes),
        "PromotedPages": GLib.Variant("t", found.promoted_pages),
        "DemotedPages": GLib.Variant("t", found.demoted_pages),
        "Broken": GLib.Variant("s", clean(found.broken)),
        "Odd": GLib.Variant("s", clean(found.odd, 512)),
    }


def _explanation(found: Explanation) -> dict[str, Any]:
    process = found.process
    nodes = [
        {"Node": GLib.Variant("u", node), "Bytes": GLib.Variant("t", amount)}
        for node, amount in sorted(found.nodes.items())
    ]
    return {
        "Pid": GLib.Variant("u", process.id.pid),
        "Uid": GLib.Variant("u", process.uid),
        "Command": GLib.Variant("s", clean(process.command)),
        "Cgroup": GLib.Variant("s", clean(process.cgroup, 4096)),
        "Class": GLib.Variant("s", clean(found.service_class)),
        "Rule": GLib.Variant("s", clean(found.rule)),
        "Promise": GLib.Variant("s", clean(found.promise)),
        "Nodes": GLib.Variant("aa{sv}", nodes),
        "Placed": GLib.Variant("b", found.placed),
        "WhyNot": GLib.Variant("s", clean(found.why_not)),
        "Fates": GLib.Variant("as", list(found.fates)),
    }


def _plan_line(line: PlanLine) -> dict[str, Any]:
    values: dict[str, Any] = {
        "Action": GLib.Variant("s", clean(line.action)),
        "Subject": GLib.Variant("s", clean(line.subject)),
        "Pages": GLib.Variant("t", line.pages),
        "Reason": GLib.Variant("s", clean(line.reason)),
    }
    if line.source_node is not None:
        values["SourceNode"] = GLib.Variant("i", line.source_node)
    if line.target_node is not None:
        values["TargetNode"] = GLib.Variant("i", line.target_node)
    return values


class Manager:
    """The adaptor behind /org/tierd1. Main thread only, but for what is `slow`, which waits in a worker.

    explain(pid): looks at a process; may be called from any thread. Raises TierdError.
    reload(): begins to read the policy file again; may be called from any thread; the future ends when the
    policy is in force, or with the TierdError that says why not.
    pause(seconds): moves nothing for so long, 0 to go on; as `reload`, the future ends when nothing moves.
    """

    PropertiesChanged = signal()
    PromiseChanged = signal()

    def __init__(
        self,
        view: View,
        xml: str,
        reload: Callable[[], Future[None]],
        explain: Callable[[int], Explanation],
        pause: Callable[[int], Future[None]],
    ) -> None:
        self._reload = reload
        self._pause = pause
        self._explain = explain
        self._kinds, self._emitting = _members(xml)
        self._take(view)
        self._announced = self._announceable()
        self._looked_through = self._variants
        self._quiet_until = 0.0

    def _take(self, view: View) -> None:
        # All or nothing: a value that does not fit its type must not break the properties that do.
        values = properties(view)
        variants = {name: GLib.Variant(kind, values[name]) for name, kind in self._kinds.items()}
        self._view, self._values, self._variants = view, values, variants

    def dbus_properties(self) -> Mapping[str, Any]:
        """Ready variants: nothing is computed, so nothing can fail, when a client asks."""
        return self._variants

    def GetPlan(self) -> list[dict[str, Any]]:
        return plan_rows(self._view.state)

    @slow
    def Explain(self, pid: int) -> dict[str, Any]:
        return _explanation(self._explain(pid))

    @authorised("org.tierd1.reload")
    @slow
    def Reload(self) -> None:
        _wait(self._reload(), "the policy is not in force")

    @authorised("org.tierd1.manage")
    @slow
    def Pause(self, seconds: int) -> None:
        if not 1 <= seconds <= LONGEST_PAUSE:
            raise InvalidError(f"a pause lasts 1 to {LONGEST_PAUSE} seconds, not {seconds}")
        _wait(self._pause(seconds), "a move that had begun is not over")

    @authorised("org.tierd1.manage")
    @slow
    def Resume(self) -> None:
        _wait(self._pause(0), "a move that had begun is not over")

    def show(self, view: View, now: float) -> None:
        """Take up a new view, and announce it unless it is too early. now: monotonic seconds."""
        before = {found.name: found.broken for found in self._view.state.classes}
        self._take(view)
        for found in view.state.classes:
            if bool(found.broken) != bool(before.get(found.name)):
                self.PromiseChanged(found.name, not found.broken, clean(found.broken))
        self.announce(now)

    def announce(self, now: float) -> None:
        """Send PropertiesChanged for what changed since the last one, at most once a second."""
        if now < self._quiet_until or self._variants is self._looked_through:
            return
        self._looked_through = self._variants
        current = self._announceable()
        changed = {
            name: self._values[name] for name, shown in current.items() if shown != self._announced[name]
        }
        if changed:
            self._announced = current
            self._quiet_until = now + SIGNAL_SECONDS
            self.PropertiesChanged(INTERFACE, changed, [])

    def _announceable(self) -> dict[str, str]:
        return {name: self._variants[name].print_(False) for name in self._emitting}


def _wait(future: Future[None], what: str) -> None:
    """In a worker. Raises TimedOutError, with `what` as its words, and what the future ends with."""
    try:
        future.result(RELOAD_SECONDS)
    except FutureTimeout:
        raise TimedOutError(f"{what} after {RELOAD_SECONDS:.0f} s") from None


def _members(xml: str) -> tuple[dict[str, str], frozenset[str]]:
    """Type of each property, and the names of those that the XML does not annotate as silent."""
    interface = Gio.DBusNodeInfo.new_for_xml(xml).lookup_interface(INTERFACE)
    kinds = {prop.name: prop.signature for prop in interface.properties}
    quiet = {
        prop.name
        for prop in interface.properties
        for annotation in prop.annotations or ()
        if annotation.key == EMITS_CHANGED and annotation.value != "true"
    }
    return kinds, frozenset(kinds) - quiet
