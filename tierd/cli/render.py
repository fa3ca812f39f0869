"""What tierctl prints, as text made of values. Pure: no terminal, no environment, no bus."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tierd.core.model import PAGE_SIZE
from tierd.core.text import clean, plural, ranges, size

_GREEN, _YELLOW, _RED, _BOLD, _PLAIN = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[1m", "\x1b[0m"
_STATE_COLOURS = {
    "idle": _GREEN,
    "observing": _GREEN,
    "converging": _GREEN,
    "steady": _GREEN,
    "not running": _RED,
}


@dataclass(frozen=True, slots=True)
class Style:
    """How the reader's terminal is. width: columns. colour, unicode: whether it shows them."""

    width: int = 80
    colour: bool = False
    unicode: bool = False

    def paint(self, code: str, text: str) -> str:
        return f"{code}{text}{_PLAIN}" if self.colour else text


def snake_case(name: str) -> str:
    """``TotalBytes`` as ``total_bytes``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def plain(value: Any) -> Any:
    """A value from the bus as one for JSON: dictionary keys in snake case, at every depth."""
    if isinstance(value, Mapping):
        return {snake_case(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def share(part: float, whole: float) -> str:
    """`part` of `whole` in per cent, a dash when there is no whole."""
    return f"{100 * part / whole:.0f}%" if whole else "-"


def status(facts: Mapping[str, Any], style: Style) -> str:
    """`tierctl status` of a running daemon. facts: as `plain` makes them of the manager's properties."""
    state = clean(str(facts.get("state", "unknown")))
    lines = [_headline(f"tierd {clean(str(facts.get('version', '')))}".strip(), state, style)]
    if facts.get("reason"):
        lines += _field("Reason", str(facts["reason"]), style)
    lines += _field("Placing", _placing(facts), style)
    lines += _field("Source", _source(facts), style)
    lines += _field("Moved", _moved(facts), style)
    lines += _field("Policy", _policy(facts), style)
    lines += [
        f"  {line}" for problem in facts.get("config_problems", ()) for line in wrap(problem, style, 2)
    ]
    lines += ["", *tiers(facts.get("tiers", ()), style)]
    lines += _sentences("Devices:", facts.get("notices", ()), style)
    lines += _sentences("Missing:", facts.get("missing", ()), style)
    return "\n".join(lines)


def offline(found: Sequence[Mapping[str, Any]], style: Style) -> str:
    """`tierctl status --offline`: the tiers of this machine as the kernel shows them."""
    if not found:
        return "no memory tiers: this kernel shows no NUMA nodes, so there is nothing for tierd to place"
    lines = list(tiers(found, style))
    if not any(tier["kind"] == "slow" for tier in found):
        lines += ["", "No slow memory is online: nothing to place. See tierctl provision plan."]
    return "\n".join(lines)


def not_running(reason: str, hint: str, style: Style) -> str:
    """`tierctl status` without a daemon: that it is so, and what works without it."""
    lines = [_headline("tierd", "not running", style)]
    if reason != "tierd is not running":
        lines += _field("Reason", reason, style)
    lines += _field("Try", hint, style)
    lines += _field("Offline", "tierctl status --offline, history, list devices, provision plan", style)
    return "\n".join(lines)


def tiers(found: Sequence[Mapping[str, Any]], style: Style) -> list[str]:
    """A table of tiers, fastest first. found: as `plain` makes them of the property Tiers."""
    rows = [("TIER", "KIND", "NODES", "USED", "TOTAL", "USE%", "LATENCY")]
    for tier in found:
        used, total = int(tier.get("used_bytes", 0)), int(tier.get("total_bytes", 0))
        latency = tier.get("read_latency_nanoseconds")
        rows.append(
            (
                clean(str(tier.get("name", "?"))),
                clean(str(tier.get("kind", "?"))),
                ranges(tier.get("nodes", ())),
                size(used),
                size(total),
                share(used, total),
                "-" if latency is None else f"{latency} ns",
            )
        )
    if len(rows) == 1:
        return ["no memory tiers known yet"]
    lines = table(rows, "lllrrrr", style)
    for tier in found:
        for words in tier.get("memory_side_caches", ()):
            first, *rest = wrap(str(words), style, 4)
            lines += [f"  - {first}", *(f"    {line}" for line in rest)]
    return lines


def classes(found: Sequence[Mapping[str, Any]], style: Style) -> str:
    """`tierctl list classes`. found: as `plain` makes them of the property Classes."""
    if not found:
        return "The policy has no classes."
    rows = [("CLASS", "PROMISE", "PRIORITY", "PROCESSES", "DRAM", "SLOW", "DRAM%", "LEAST", "MOST")]
    for one in found:
        dram, slow = int(one["dram_bytes"]), int(one["slow_bytes"])
        rows.append(
            (
                clean(str(one["name"])),
                clean(str(one["promise"])) or "-",
                str(one["priority"]),
                str(one["processes"]),
                size(dram),
                size(slow),
                share(dram, dram + slow),
                size(int(one["least_bytes"])),
                size(int(one["most_bytes"])),
            )
        )
    broken = [str(one["broken"]) for one in found if one["broken"]]
    odd = [str(one["odd"]) for one in found if one["odd"]]
    lines = [*_sentences("Not kept:", broken, style), *_sentences("Without a process:", odd, style)]
    return "\n".join([*table(rows, "llrrrrrrr", style), *lines])


def processes(
    found: Sequence[Mapping[str, Any]], style: Style, *, more: bool = False, everybody: bool = True
) -> str:
    """`tierctl list processes`. found: as `plain` makes them of the rows of ListProcesses. more: whether
    there may be more of them. everybody: whether those of others would be among them."""
    rows = [("PID", "UID", "CLASS", "RESIDENT", "DRAM", "SLOW", "DRAM%", "PLACED", "CGROUP")]
    for one in found:
        where = ("-", "-", "-")
        if "dram_bytes" in one and "slow_bytes" in one:
            dram, slow = int(one["dram_bytes"]), int(one["slow_bytes"])
            where = (size(dram), size(slow), share(dram, dram + slow))
        rows.append(
            (
                str(one["pid"]),
                str(one["uid"]),
                clean(str(one["class"])),
                size(int(one["resident_bytes"])),
                *where,
                "yes" if one["placed"] else "no",
                clean(str(one["cgroup"])),
            )
        )
    lines = table(rows, "rrlrrrrll", style) if found else ["No such process."]
    notes = ["There may be smaller ones: --limit shows up to 200."] if more else []
    if not everybody:
        notes.append(
            "Those of others are shown to root, and where polkit permits org.tierd1.read-processes."
        )
    return "\n".join([*lines, *([""] if notes else []), *notes])


def explanation(found: Mapping[str, Any], style: Style) -> str:
    """`tierctl explain`. found: as `plain` makes it of what Explain answers."""
    title = f"Process {found['pid']} ({clean(str(found['command']))})"
    lines = [style.paint(_BOLD, title), *_field("Cgroup", str(found["cgroup"]), style)]
    promise = f" ({found['promise']})" if found["promise"] else ""
    lines += _field("Class", f"{found['rule']}{promise}", style)
    where = ", ".join(f"node {one['node']}: {size(one['bytes'])}" for one in found["nodes"])
    lines += _field("Memory", where or "none", style)
    lines += _field("Placed", "yes" if found["placed"] else f"no: {found['why_not']}", style)
    return "\n".join([*lines, *_sentences("What was moved:", found["fates"], style)])


def plan(rows: Sequence[Mapping[str, Any]], style: Style) -> str:
    """`tierctl plan`: what the daemon does next, and why. rows: as `plain` makes them of GetPlan's."""
    if not rows:
        return "Nothing to do: the last round planned no step."
    lines = []
    for row in rows:
        action, rest = step(row)
        lines.append(f"{style.paint(_BOLD, action)} {rest}".rstrip())
        lines += [f"    {line}" for line in wrap(f"because {row['reason']}", style, 4) if row.get("reason")]
    return "\n".join([*lines, "", steps(rows)])


def step(row: Mapping[str, Any]) -> tuple[str, str]:
    """A step of the plan in words: what is done, and how much, from where and of whom."""
    pages = int(row.get("pages", 0))
    what = [size(pages * PAGE_SIZE)] if pages else []
    source, target = row.get("source_node"), row.get("target_node")
    if source is not None and target is not None:
        what.append(f"node {source} to node {target}")
    what.append(clean(str(row.get("subject", ""))))
    return clean(str(row.get("action", "?"))), ", ".join(word for word in what if word)


def steps(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many steps a plan has, and what they come to."""
    sums = dict[str, int]()
    for row in rows:
        action = clean(str(row.get("action", "?")))
        sums[action] = sums.get(action, 0) + int(row.get("pages", 0))
    total = ", ".join(f"{action} {size(pages * PAGE_SIZE)}" for action, pages in sums.items() if pages)
    return f"{plural(len(rows), 'step')}{': ' + total if total else ''}"


def in_words(facts: Mapping[str, Any]) -> dict[str, str]:
    """What is placed, by which source, and what was moved: a sentence each, under the name of its line."""
    return {"Placing": _placing(facts), "Source": _source(facts), "Moved": _moved(facts)}


def state_colour(state: str) -> str:
    """How a terminal is told the colour of a state."""
    return _STATE_COLOURS.get(state, _YELLOW)


def _headline(name: str, state: str, style: Style) -> str:
    colour = state_colour(state)
    return f"{style.paint(colour, '●' if style.unicode else '*')} {name}: {style.paint(colour, state)}"


def _field(name: str, text: str, style: Style) -> list[str]:
    first, *rest = wrap(text, style, 11)
    return [f"{name:>9}: {first}", *(f"{'':11}{line}" for line in rest)]


def _placing(facts: Mapping[str, Any]) -> str:
    processes, cgroups = int(facts.get("hosted_processes", 0)), int(facts.get("hosted_cgroups", 0))
    if not processes:
        return "no process"
    dram, slow = int(facts.get("placed_dram_bytes", 0)), int(facts.get("placed_slow_bytes", 0))
    text = f"{plural(processes, 'process')} in {plural(cgroups, 'cgroup')}"
    if dram + slow:
        text += f": {size(dram)} in DRAM, {size(slow)} in slow memory ({share(dram, dram + slow)} in DRAM)"
    return text


def _source(facts: Mapping[str, Any]) -> str:
    source, reason = facts.get("source", "none"), facts.get("source_reason", "")
    return f"{source} ({reason})" if reason else str(source)


def _moved(facts: Mapping[str, Any]) -> str:
    counters = facts.get("counters", {})
    pages = {
        key: int(counters.get(f"{key}_pages", 0)) for key in ("promoted", "demoted", "refused", "deferred")
    }
    parts = [f"{size(pages[key] * PAGE_SIZE)} {key}" for key in ("promoted", "demoted")]
    parts += [f"{size(pages[key] * PAGE_SIZE)} {key}" for key in ("refused", "deferred") if pages[key]]
    parts += [
        f"{plural(int(counters[key]), 'huge page')} {word}"
        for key, word in (("huge_pages_split", "split"), ("huge_pages_rebuilt", "rebuilt"))
        if counters.get(key)
    ]
    rate = float(facts.get("bytes_per_second", 0.0))
    if rate:
        parts.append(f"{size(rate)}/s now")
    if counters.get("samples_lost"):
        parts.append(f"{counters['samples_lost']} of {counters.get('samples', 0)} samples lost")
    return ", ".join(parts)


def _policy(facts: Mapping[str, Any]) -> str:
    origin = str(facts.get("policy_origin", "")) or "unknown"
    digest = str(facts.get("policy_digest", ""))[:12]
    if facts.get("config_state", "current") == "current":
        return f"{origin} ({digest})" if digest else origin
    return f"{origin}: refused at the last reload, the older policy stays in force:"


def _sentences(title: str, found: Sequence[str], style: Style) -> list[str]:
    lines = ["", style.paint(_YELLOW, title)] if found else []
    for sentence in found:
        first, *rest = wrap(str(sentence), style, 4)
        lines += [f"  - {first}", *(f"    {line}" for line in rest)]
    return lines


def wrap(text: str, style: Style, indent: int = 0) -> list[str]:
    """At least one line. Long words (paths) are not broken, so that they can be copied."""
    width = max(style.width - indent, 20)
    return textwrap.wrap(clean(text, None), width, break_long_words=False, break_on_hyphens=False) or [""]


def table(rows: Sequence[Sequence[str]], alignment: str, style: Style) -> list[str]:
    """Columns two blanks apart, the first row a bold legend. alignment: ``l`` or ``r`` for each column."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(alignment))]
    lines = [
        "  ".join(
            cell.ljust(width) if side == "l" else cell.rjust(width)
            for cell, width, side in zip(row, widths, alignment, strict=True)
        ).rstrip()
        for row in rows
    ]
    return [style.paint(_BOLD, lines[0]), *lines[1:]]
