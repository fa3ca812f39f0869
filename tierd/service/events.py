"""What is worth a line in the journal, as values. Pure: no clock, no I/O.

Every kind has a 128-bit MESSAGE_ID that never changes; systemd/tierd.catalog explains each of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from tierd.core.memory_side_cache import cache_words
from tierd.core.model import PAGE_SIZE, Tier, Topology
from tierd.core.state import EngineState, State
from tierd.core.text import clean, plural, ranges, sentence, size


class Priority(IntEnum):
    """syslog(3) levels."""

    CRITICAL = 2
    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6
    DEBUG = 7


@dataclass(frozen=True, slots=True)
class EventType:
    """A kind of event: `name` is the field TIERD_EVENT, `message_id` MESSAGE_ID, 32 hexadecimal digits."""

    name: str
    message_id: str
    priority: Priority


STARTED = EventType("started", "bdfe36bbf0f14a75aa81a2c5d4f6b1a7", Priority.INFO)
STOPPED = EventType("stopped", "1d7dbe1dcf9f4f3c9f7e9020b13407ed", Priority.INFO)
RESTARTING = EventType("restarting", "06bea6a027964bc19b12ed184647b2c2", Priority.INFO)
STATE_CHANGED = EventType("state-changed", "7712a77db0aa40a3a7a893481b7bf24b", Priority.INFO)
DEGRADED = EventType("degraded", "cba8bc8f17304babbaaece84e19557e0", Priority.WARNING)
HOLDING = EventType("holding", "2e3f346deba846b993dae439b55af900", Priority.WARNING)
TIER_APPEARED = EventType("tier-appeared", "e1d716431d4a42438eae635437880a5b", Priority.INFO)
TIER_VANISHED = EventType("tier-vanished", "bb651edaea8244e699ddb3e207410ba8", Priority.WARNING)
TIER_RESIZED = EventType("tier-resized", "43c7b8e5e2dd47d09f2d8624ada673d0", Priority.INFO)
MEMORY_MODE = EventType("memory-mode", "814295e9a6f848899760b875dc1fbdb2", Priority.WARNING)
MOVED = EventType("moved", "dc1acbc3e45e48dfae28127d27eb63d0", Priority.INFO)
FEATURE_MISSING = EventType("feature-missing", "03dc7b794e68455a8c8323e290bccc70", Priority.WARNING)
FEATURE_RETURNED = EventType("feature-returned", "b3e8cec32d414c5b98db97b2effb2f82", Priority.INFO)
PROMISE_BROKEN = EventType("promise-broken", "23d8ea9a35694a5aadb76674c82dba06", Priority.WARNING)
PROMISE_KEPT = EventType("promise-kept", "62131aad70e441ebb7286445fa0e04eb", Priority.INFO)
POLICY_ADOPTED = EventType("policy-adopted", "a6033e4f898a4ae7a2df2af04d159a99", Priority.INFO)
POLICY_ODD = EventType("policy-odd", "bec785af722f4ecd96774bddb965c568", Priority.WARNING)
POLICY_REJECTED = EventType("policy-rejected", "163e6994365a46ad9dcb692c5a0b57b1", Priority.ERROR)
START_FAILED = EventType("start-failed", "1db09965e9a4451e90b4790af4c69f59", Priority.ERROR)
ENGINE_FAILED = EventType("engine-failed", "e28399b53e0e421489dfec068dddc3d4", Priority.CRITICAL)
ENGINE_STALLED = EventType("engine-stalled", "721ca04838d2461191e1ac176b6aece8", Priority.ERROR)
SOURCE_CHOSEN = EventType("source-chosen", "b280492c29634519a5a43659f996a24b", Priority.INFO)
BUS_LOST = EventType("bus-lost", "59839504875a4c47b7226a88e8c3a782", Priority.WARNING)
BUS_CONNECTED = EventType("bus-connected", "ad6e4d3df8724db29261a979879e08eb", Priority.INFO)
NOTED = EventType("noted", "2d24d469762548b2af74bc557b9aca51", Priority.INFO)
TRACED = EventType("traced", "6bd3d09bd3294db58f4e3880d2a5f1dc", Priority.DEBUG)
INTERNAL = EventType("internal-error", "57c5fd663ad9424a94e5ad65294c34b9", Priority.ERROR)

EVENT_TYPES = (
    STARTED,
    STOPPED,
    RESTARTING,
    STATE_CHANGED,
    DEGRADED,
    HOLDING,
    TIER_APPEARED,
    TIER_VANISHED,
    TIER_RESIZED,
    MEMORY_MODE,
    MOVED,
    FEATURE_MISSING,
    FEATURE_RETURNED,
    PROMISE_BROKEN,
    PROMISE_KEPT,
    POLICY_ADOPTED,
    POLICY_ODD,
    POLICY_REJECTED,
    START_FAILED,
    ENGINE_FAILED,
    ENGINE_STALLED,
    SOURCE_CHOSEN,
    BUS_LOST,
    BUS_CONNECTED,
    NOTED,
    TRACED,
    INTERNAL,
)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    subject: what it happened to; of equal (type, subject) within a minute the first and the last become
    lines, the latter with a count. message: one sentence. fields: journal fields, keys ``TIERD_*``; values
    may be several lines and hold anything.
    """

    type: EventType
    message: str
    subject: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


def events_between(previous: State, current: State) -> tuple[Event, ...]:
    """What changed from one round to the next, most urgent first. Movement is told by `movement_between`."""
    found = [
        *_state_events(previous, current),
        *_source_events(previous, current),
        *_tier_events(previous, current),
        *_cache_events(previous.topology, current.topology),
        *_feature_events(previous, current),
        *_promise_events(previous, current),
    ]
    return tuple(sorted(found, key=lambda event: event.type.priority))


def _state_events(previous: State, current: State) -> Iterator[Event]:
    # A hold with another reason is another event; elsewhere the reason is commentary.
    same = previous.engine is current.engine
    if same and (current.engine is not EngineState.HOLDING or previous.reason == current.reason):
        return
    kind = {EngineState.DEGRADED: DEGRADED, EngineState.HOLDING: HOLDING}.get(current.engine, STATE_CHANGED)
    reason = clean(current.reason)
    yield Event(
        kind,
        f"{current.engine.value} (was {previous.engine.value})" + (f": {reason}" if reason else ""),
        # figures change from round to round, and what holds moves up does not
        subject=current.engine.value if kind is STATE_CHANGED else re.sub(r"\d+", "", reason),
        fields={
            "TIERD_STATE": current.engine.value,
            "TIERD_STATE_BEFORE": previous.engine.value,
            "TIERD_REASON": current.reason,
            "TIERD_SOURCE": current.source,
        },
    )


def _source_events(previous: State, current: State) -> Iterator[Event]:
    if (previous.source, previous.source_reason) == (current.source, current.source_reason):
        return
    yield Event(
        SOURCE_CHOSEN,
        f"accesses are seen through: {current.source} ({clean(current.source_reason, 400)})",
        subject=current.source,
        fields={"TIERD_SOURCE": current.source, "TIERD_SOURCE_REASON": current.source_reason},
    )


def _tier_events(previous: State, current: State) -> Iterator[Event]:
    before = {tier.name: tier for tier in previous.topology.tiers}
    after = {tier.name: tier for tier in current.topology.tiers}
    for name, tier in after.items():
        if name not in before:
            yield Event(TIER_APPEARED, f"tier {_describe(tier)}", subject=name, fields=_tier_fields(tier))
        elif before[name].total != tier.total:
            words, fields = _blocks_between(before[name], tier, previous, current)
            message = f"tier {_describe(tier)}, was {size(before[name].total)}{words}"
            yield Event(TIER_RESIZED, message, subject=name, fields={**_tier_fields(tier), **fields})
    for name, tier in before.items():
        if name not in after:
            words, fields = _blocks_between(tier, None, previous, current)
            message = f"tier {_describe(tier)} is gone{words}"
            yield Event(TIER_VANISHED, message, subject=name, fields={**_tier_fields(tier), **fields})


def _blocks_between(
    before: Tier, after: Tier | None, previous: State, current: State
) -> tuple[str, dict[str, str]]:
    """Which memory blocks of a tier have come and gone: words for the message, and fields."""

    def blocks(tier: Tier | None, state: State) -> set[int]:
        return {n for node in (tier.nodes if tier else ()) for n in state.blocks.get(node.number, ())}

    old, new = blocks(before, previous), blocks(after, current)
    changes = {
        "offline": ranges(old - new) if old - new else "",
        "online": ranges(new - old) if new - old else "",
    }
    words = sentence([f"memory blocks {clean(which)} went {how}" for how, which in changes.items() if which])
    names = {"offline": "TIERD_BLOCKS_OFFLINE", "online": "TIERD_BLOCKS_ONLINE"}
    fields = {names[how]: which for how, which in changes.items() if which}
    return f": {words}" if words else "", fields


def _cache_events(previous: Topology, current: Topology) -> Iterator[Event]:
    for cache in current.caches:
        if cache not in previous.caches:
            fields = {"TIERD_NODE": str(cache.node), "TIERD_CACHE_BYTES": str(cache.size)}
            yield Event(MEMORY_MODE, cache_words(cache), subject=f"node {cache.node}", fields=fields)


def _describe(tier: Tier) -> str:
    numbers = ("node " if len(tier.nodes) == 1 else "nodes ") + ", ".join(str(n.number) for n in tier.nodes)
    return f"{clean(tier.name, 64)} ({tier.kind.value}, {numbers}): {size(tier.total)}"


def _tier_fields(tier: Tier) -> dict[str, str]:
    return {
        "TIERD_TIER": tier.name,
        "TIERD_TIER_KIND": tier.kind.value,
        "TIERD_NODES": " ".join(str(node.number) for node in tier.nodes),
        "TIERD_TOTAL_BYTES": str(tier.total),
    }


def _feature_events(previous: State, current: State) -> Iterator[Event]:
    before = {missing.feature: missing for missing in previous.missing}
    after = {missing.feature: missing for missing in current.missing}
    for feature, missing in after.items():
        if feature not in before:
            yield Event(
                FEATURE_MISSING,
                clean(str(missing), 512),
                subject=feature,
                fields={
                    "TIERD_FEATURE": feature,
                    "TIERD_LOSS": missing.loss,
                    "TIERD_REMEDY": missing.remedy,
                },
            )
    for feature in before.keys() - after.keys():
        yield Event(
            FEATURE_RETURNED,
            f"{clean(feature)} is there again",
            subject=feature,
            fields={"TIERD_FEATURE": feature},
        )


def _promise_events(previous: State, current: State) -> Iterator[Event]:
    before = {found.name: found.broken for found in previous.classes}
    odd = {found.odd for found in previous.classes}
    yield from (odd_policy(found.odd) for found in current.classes if found.odd and found.odd not in odd)
    for found in current.classes:
        fields = {
            "TIERD_CLASS": found.name,
            "TIERD_PROMISE": found.promise,
            "TIERD_DRAM_BYTES": str(found.dram_bytes),
            "TIERD_SLOW_BYTES": str(found.slow_bytes),
        }
        if found.broken and not before.get(found.name):
            yield Event(PROMISE_BROKEN, found.broken, subject=found.name, fields=fields)
        elif not found.broken and before.get(found.name):
            message = f"class {clean(found.name)} has the DRAM that it is promised ({found.promise})"
            yield Event(PROMISE_KEPT, message, subject=found.name, fields=fields)


def odd_policy(warning: str) -> Event:
    """What is odd about a policy in force: ``FILE:LINE:COLUMN: PATH: warning: message``."""
    return Event(POLICY_ODD, clean(warning, 512), subject=warning, fields={"TIERD_POLICY_WARNING": warning})


def policy_rejected(problems: tuple[str, ...], digest: str) -> Event:
    """A policy was refused while another, with `digest`, is in force."""
    return Event(
        POLICY_REJECTED,
        f"policy refused, the older one stays in force: {_first(problems)}",
        subject="\n".join(problems),
        fields={"TIERD_PROBLEMS": "\n".join(problems), "TIERD_POLICY_SHA256": digest},
    )


def start_failed(problems: tuple[str, ...], exit_status: int) -> Event:
    """The daemon ends before it has begun."""
    return Event(
        START_FAILED,
        f"tierd cannot start: {_first(problems)}",
        fields={"TIERD_PROBLEMS": "\n".join(problems), "TIERD_EXIT_STATUS": str(exit_status)},
    )


def _first(problems: tuple[str, ...]) -> str:
    more = f" (and {plural(len(problems) - 1, 'more problem')})" if len(problems) > 1 else ""
    return clean(problems[0], 384) + more


def movement_between(previous: State, current: State) -> Event | None:
    """A summary of what was moved from `previous` to `current`, None when nothing was."""
    before, after = previous.counters, current.counters
    promoted = after.promoted_pages - before.promoted_pages
    demoted = after.demoted_pages - before.demoted_pages
    split = after.huge_pages_split - before.huge_pages_split
    rebuilt = after.huge_pages_rebuilt - before.huge_pages_rebuilt
    refused = after.refused_pages - before.refused_pages
    if not (promoted or demoted or split or rebuilt):
        return None
    message = sentence(
        [
            f"promoted {size(promoted * PAGE_SIZE)}",
            f"demoted {size(demoted * PAGE_SIZE)}",
            f"split {plural(split, 'huge page')}" if split else "",
            f"rebuilt {plural(rebuilt, 'huge page')}" if rebuilt else "",
            f"{plural(refused, 'page')} refused by the kernel" if refused else "",
        ]
    )
    seconds = max(current.monotonic - previous.monotonic, 0.0)
    return Event(
        MOVED,
        f"{message} in {seconds:.0f} s",
        fields={
            "TIERD_PROMOTED_PAGES": str(promoted),
            "TIERD_DEMOTED_PAGES": str(demoted),
            "TIERD_REFUSED_PAGES": str(refused),
            "TIERD_HUGE_PAGES_SPLIT": str(split),
            "TIERD_HUGE_PAGES_REBUILT": str(rebuilt),
            "TIERD_SECONDS": f"{seconds:.3f}",
        },
    )


_VERBS = {EngineState.CONVERGING: "placing"}


def status_line(state: State) -> str:
    """The line behind ``Status:`` of `systemctl status`, from one state."""
    verb = _VERBS.get(state.engine, state.engine.value)
    reason = clean(state.reason, 120)
    if reason and state.engine not in {EngineState.CONVERGING, EngineState.STEADY}:
        verb += f" ({reason})"
    total = sum(node.total for node in state.topology.dram)
    free = sum(node.free for node in state.topology.dram)
    promoted = state.counters.promoted_pages
    facts = sentence(
        [
            plural(len(state.topology.tiers), "tier") if state.topology.tiers else "",
            f"{plural(state.processes, 'process')} in {plural(state.cgroups, 'cgroup')}",
            f"{state.bytes_per_second / 1e6:.0f} MB/s",
            f"DRAM {100 * (total - free) / total:.0f} % full" if total else "",
            f"{size(promoted * PAGE_SIZE)} promoted" if promoted else "",
        ]
    )
    return f"{verb}: {facts}"
