"""What the daemon knows, in the types that D-Bus has. conf/dbus says what each key means."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from gi.repository import GLib

from tierd import __version__
from tierd.core.address_heat import HeatBin
from tierd.core.memory_side_cache import MemorySideCache, cache_words
from tierd.core.model import PAGE_SIZE, Tier
from tierd.core.past import STEPS, Moment
from tierd.core.state import ClassState, Counters, PlanLine, State
from tierd.core.text import clean
from tierd.service.events import status_line
from tierd.service.explaining import Explanation
from tierd.service.process_rows import ProcessRow

PLAN_ROWS = 500
"""Rows of one GetPlan reply; with lines of at most 256 characters the reply stays well below 1 MB."""
CLASS_ROWS = 200

_TIER_KINDS = {
    "Name": "s",
    "Kind": "s",
    "Nodes": "au",
    "TotalBytes": "t",
    "FreeBytes": "t",
    "UsedBytes": "t",
    "MemorySideCaches": "as",
    "ReadLatencyNanoseconds": "u",
}


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
        "LastRoundTime": time.time() - time.monotonic() + state.monotonic if state.monotonic else 0.0,
        "OwnCost": {
            "CpuSeconds": GLib.Variant("d", state.own_cpu_seconds),
            "ResidentBytes": GLib.Variant("t", state.own_resident_bytes),
        },
        "Tiers": [_tier(tier, state.topology.caches) for tier in state.topology.tiers],
        "Classes": [_class(found) for found in state.classes[:CLASS_ROWS]],
        "Notices": [clean(notice, 512) for notice in view.notices[:100]],
        "Missing": [clean(str(missing), 512) for missing in state.missing],
    }


def plan_reply(state: State) -> Any:
    """The last plan, as GetPlan answers it."""
    return GLib.Variant("(aa{sv})", ([_plan_line(line) for line in state.plan[:PLAN_ROWS]],))


class HistoryRows:
    """The answers of GetHistory. Each row is made once, since anybody may ask as often as they like. For any
    thread."""

    def __init__(self) -> None:
        self._rows: dict[float, Any] = {}
        self._lock = threading.Lock()

    def reply(self, moments: Sequence[Moment]) -> Any:
        """`moments`, as GetHistory answers them."""
        with self._lock:
            for moment in moments:
                if moment.time not in self._rows:
                    self._rows[moment.time] = GLib.Variant("a{sv}", _moment_values(moment))
            rows = [self._rows[moment.time] for moment in moments]
            for old in list(self._rows)[:-STEPS]:
                del self._rows[old]
        return GLib.Variant.new_tuple(GLib.Variant.new_array(GLib.VariantType("a{sv}"), rows))


def _moment_values(moment: Moment) -> dict[str, Any]:
    tiers, classes = moment.tiers.items(), moment.classes.items()
    return {
        "Time": GLib.Variant("d", moment.time),
        "State": GLib.Variant("s", moment.state.value),
        "PromotedBytes": GLib.Variant("t", moment.promoted),
        "DemotedBytes": GLib.Variant("t", moment.demoted),
        "PlacedDramBytes": GLib.Variant("t", moment.dram),
        "PlacedSlowBytes": GLib.Variant("t", moment.slow),
        "TierUsedBytes": GLib.Variant("a{st}", {clean(name): used for name, (used, _) in tiers}),
        "TierTotalBytes": GLib.Variant("a{st}", {clean(name): total for name, (_, total) in tiers}),
        "ClassDramBytes": GLib.Variant("a{st}", {clean(name): dram for name, (dram, _) in classes}),
        "ClassSlowBytes": GLib.Variant("a{st}", {clean(name): slow for name, (_, slow) in classes}),
    }


def _counters(counters: Counters) -> dict[str, Any]:
    values = ((field.name, getattr(counters, field.name)) for field in fields(counters))
    return {
        _camel(name): GLib.Variant("d" if isinstance(value, float) else "t", value) for name, value in values
    }


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def tier_properties(tier: Tier, caches: tuple[MemorySideCache, ...]) -> dict[str, Any]:
    """A value for every property of org.tierd1.Tier, in the types that GLib.Variant takes. caches: of all
    nodes."""
    # Of several nodes, the slowest: what a reader can rely on.
    latencies = [node.read_latency for node in tier.nodes if node.read_latency is not None]
    nodes = [node.number for node in tier.nodes]
    return {
        "Name": clean(tier.name),
        "Kind": tier.kind.value,
        "Nodes": nodes,
        "TotalBytes": tier.total,
        "FreeBytes": tier.free,
        "UsedBytes": max(tier.total - tier.free, 0),
        "MemorySideCaches": [clean(cache_words(cache), 512) for cache in caches if cache.node in nodes],
        "ReadLatencyNanoseconds": round(max(latencies, default=0)),
    }


def _tier(tier: Tier, caches: tuple[MemorySideCache, ...]) -> dict[str, Any]:
    values = tier_properties(tier, caches)
    for name in ("MemorySideCaches", "ReadLatencyNanoseconds"):
        if not values[name]:
            del values[name]
    return {name: GLib.Variant(_TIER_KINDS[name], value) for name, value in values.items()}


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


def process_values(row: ProcessRow) -> dict[str, Any]:
    """A row of what ListProcesses answers. No command: that is its user's alone."""
    values = {
        "Pid": GLib.Variant("u", row.process.id.pid),
        "Uid": GLib.Variant("u", row.process.uid),
        "Class": GLib.Variant("s", clean(row.service_class)),
        "Cgroup": GLib.Variant("s", clean(row.process.cgroup)),
        "ResidentBytes": GLib.Variant("t", row.process.resident),
        "Placed": GLib.Variant("b", row.placed),
    }
    for name, amount in (("DramBytes", row.dram), ("SlowBytes", row.slow)):
        if amount is not None:
            values[name] = GLib.Variant("t", amount)
    return values


def heat_values(found: HeatBin) -> dict[str, Any]:
    """A row of what GetHeat answers."""
    values = {
        "Start": GLib.Variant("t", found.start * PAGE_SIZE),
        "End": GLib.Variant("t", found.end * PAGE_SIZE),
        "KnownPages": GLib.Variant("t", found.known),
        "RememberedPages": GLib.Variant("t", found.remembered),
    }
    if found.rate is not None:
        values["Rate"] = GLib.Variant("d", found.rate)
    for name, pages in (("Pages", found.pages), ("DramPages", found.dram)):
        if pages is not None:
            values[name] = GLib.Variant("t", pages)
    return values


def explanation_values(found: Explanation) -> dict[str, Any]:
    """What Explain answers."""
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
