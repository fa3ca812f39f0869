"""What tierd knows as OpenMetrics text, for Prometheus. Pure.

Format: the OpenMetrics specification 1.0, and as much of it as the older text format of Prometheus has too:
the collector of node_exporter drops a whole file for a type that it does not know (info, stateset). Names:
base units, and `_total` for what only grows. No label is a process number: each would be a series for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tierd.core.model import PAGE_SIZE
from tierd.core.state import EngineState

STATES: Final = tuple(state.value for state in EngineState)
"""Each is a sample, and one of them is 1."""

Sample = tuple[Mapping[str, str], float]


def metrics(facts: Mapping[str, Any]) -> str:
    """`tierctl metrics`. facts: as `render.plain` makes them of the manager's properties."""
    counters, own = facts.get("counters", {}), facts.get("own_cost", {})
    lines = [
        *_family(
            "tierd_build_info",
            "gauge",
            "The running daemon.",
            [({"version": facts.get("version", ""), "source": facts.get("source", "")}, 1)],
        ),
        *_family(
            "tierd_state",
            "gauge",
            "What the engine is doing.",
            [({"tierd_state": state}, int(facts.get("state") == state)) for state in STATES],
        ),
        *_one(
            "tierd_policy_current",
            "Whether the policy file is in force; 0 when it was refused, and an older one is.",
            int(facts.get("config_state") == "current"),
        ),
        *_one("tierd_missing_features", "What this machine lacks.", len(facts.get("missing", ()))),
        *_one("tierd_processes", "Processes that are placed.", facts.get("hosted_processes", 0)),
        *_one("tierd_cgroups", "Cgroups with such processes.", facts.get("hosted_cgroups", 0)),
        *_tiers(facts.get("tiers", ())),
        *_family(
            "tierd_placed_bytes",
            "gauge",
            "Memory of cgroups with placed processes.",
            [
                ({"kind": "dram"}, facts.get("placed_dram_bytes", 0)),
                ({"kind": "slow"}, facts.get("placed_slow_bytes", 0)),
            ],
            unit="bytes",
        ),
        *_pages("tierd_promoted", "Memory that went up to DRAM.", counters.get("promoted_pages", 0)),
        *_pages("tierd_demoted", "Memory that went down to slow tiers.", counters.get("demoted_pages", 0)),
        *_pages("tierd_refused", "Memory that the kernel did not move.", counters.get("refused_pages", 0)),
        *_counter("tierd_samples", "Accesses seen.", counters.get("samples", 0)),
        *_counter(
            "tierd_samples_lost", "Accesses that were not kept up with.", counters.get("samples_lost", 0)
        ),
        *_counter("tierd_rounds", "Rounds of the engine.", counters.get("rounds", 0)),
        *_counter("tierd_huge_pages_split", "Huge pages split.", counters.get("huge_pages_split", 0)),
        *_counter("tierd_huge_pages_rebuilt", "Huge pages made.", counters.get("huge_pages_rebuilt", 0)),
        *_counter(
            "tierd_move_seconds", "Time in the mover.", counters.get("move_seconds", 0), unit="seconds"
        ),
        *_counter(
            "tierd_round_seconds", "Time in rounds.", counters.get("round_seconds", 0), unit="seconds"
        ),
        *_one(
            "tierd_last_round_timestamp_seconds",
            "When the last round ended, since 1970.",
            facts.get("last_round_time", 0),
            unit="seconds",
        ),
        *_counter(
            "tierd_own_cpu_seconds",
            "CPU time of the daemon itself.",
            own.get("cpu_seconds", 0),
            unit="seconds",
        ),
        *_one(
            "tierd_own_resident_bytes",
            "Memory of the daemon itself.",
            own.get("resident_bytes", 0),
            unit="bytes",
        ),
        *_classes(facts.get("classes", ())),
        "# EOF",
    ]
    return "\n".join(lines) + "\n"


def _tiers(tiers: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    for name, key, words in (
        ("tierd_tier_capacity_bytes", "total_bytes", "Memory of the tier."),
        ("tierd_tier_used_bytes", "used_bytes", "Memory of the tier that is in use."),
    ):
        samples = [({"tier": str(t["name"]), "kind": str(t["kind"])}, t[key]) for t in tiers]
        yield from _family(name, "gauge", words, samples, unit="bytes")


def _classes(classes: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    for name, key, words in (
        ("tierd_class_dram_bytes", "dram_bytes", "Memory of the service class in DRAM."),
        ("tierd_class_slow_bytes", "slow_bytes", "Memory of the service class on slow tiers."),
        ("tierd_class_least_bytes", "least_bytes", "DRAM that is kept for the service class."),
        ("tierd_class_most_bytes", "most_bytes", "DRAM that the service class may have."),
        ("tierd_class_processes", "processes", "Processes of the service class."),
    ):
        unit = "bytes" if name.endswith("_bytes") else ""
        samples = [({"class": str(found["name"])}, found[key]) for found in classes]
        yield from _family(name, "gauge", words, samples, unit=unit)
    yield from _family(
        "tierd_class_promise_kept",
        "gauge",
        "Whether the service class has the DRAM that it is promised.",
        [({"class": str(found["name"])}, int(not found["broken"])) for found in classes],
    )
    for name, key, words in (
        ("tierd_class_promoted_bytes", "promoted_pages", "Memory of the class that went up."),
        ("tierd_class_demoted_bytes", "demoted_pages", "Memory of the class that went down."),
    ):
        samples = [({"class": str(found["name"])}, found[key] * PAGE_SIZE) for found in classes]
        yield from _family(name, "counter", words + " Anew with each policy.", samples, unit="bytes")


def _one(name: str, words: str, value: float, unit: str = "") -> list[str]:
    return _family(name, "gauge", words, [({}, value)], unit=unit)


def _counter(name: str, words: str, value: float, unit: str = "") -> list[str]:
    return _family(name, "counter", words, [({}, value)], unit=unit)


def _pages(name: str, words: str, pages: int) -> list[str]:
    return _counter(f"{name}_bytes", words, pages * PAGE_SIZE, unit="bytes")


def _family(name: str, kind: str, words: str, samples: Sequence[Sample], unit: str = "") -> list[str]:
    """The lines of one metric; none when it has no sample."""
    if not samples:
        return []
    ending = "_total" if kind == "counter" else ""
    return [
        f"# TYPE {name} {kind}",
        *([f"# UNIT {name} {unit}"] if unit else []),
        f"# HELP {name} {words}",
        *(f"{name}{ending}{_labels(labels)} {_number(value)}" for labels, value in samples),
    ]


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)
