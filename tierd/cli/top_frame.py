"""A frame of `tierctl top`, as lines made of values. Pure: no terminal, no clock, no bus."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from tierd.cli import render
from tierd.cli.render import Style, share
from tierd.cli.terminal import BOLD, GREEN, YELLOW
from tierd.core.model import PAGE_SIZE
from tierd.core.text import clean, size

_WIDEST_BAR = 100
_NARROWEST_BAR = 6
_LEAST_OF_PLAN = 5
"""Rows that classes leave to the plan: a blank, its title, a step with its reason, and how many more."""

_FEWEST_WITH_FOOTER = 3
_ROOMY = 30
"""Rows from which on sentences may take several lines."""

Line = list[tuple[str, str]]
"""Pieces of a line: how a terminal is told the colour, which may be empty, and the text."""

Group = list[Line]
"""Lines that are shown together or not at all."""


class Size(NamedTuple):
    """Of a terminal. rows: None when nothing is cut, for what is printed."""

    columns: int
    rows: int | None


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen of the daemon at one time.

    facts: the manager's properties, as `render.plain` makes them; empty when none were ever seen. plan: of
    GetPlan, likewise. at: monotonic seconds, and clock the time of day, when these were seen. state: in
    place of the daemon's own when it did not answer; problem and hint say why, and what to do.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    plan: Sequence[Mapping[str, Any]] = ()
    at: float = 0.0
    clock: str = ""
    state: str = ""
    problem: str = ""
    hint: str = ""


def frame(now: Sight, before: Sight | None, extent: Size, style: Style, footer: str = "") -> list[str]:
    """What is shown of `now`: as many lines as there are rows at most, none wider than the columns.

    before: the sight that `now` followed, for rates. footer: stands on the last row.
    """
    if not style.unicode:
        words = {"problem": _ascii(now.problem), "hint": _ascii(now.hint)}
        now = replace(now, facts=_ascii(now.facts), plan=_ascii(now.plan), **words)
    style = replace(style, width=extent.columns)
    if extent.rows is None:
        return [_painted(line, None, style) for line in _body(now, before, None, style)]
    footer = footer if extent.rows >= _FEWEST_WITH_FOOTER else ""
    room = extent.rows - bool(footer)
    lines = _body(now, before, room, style)[:room]
    if footer:
        lines += [[]] * (room - len(lines)) + [[("", footer)]]
    return [_painted(line, extent.columns, style) for line in lines]


def _body(now: Sight, before: Sight | None, rows: int | None, style: Style) -> list[Line]:
    """All but the footer. May be more than `rows` when these are few."""
    lines = _head(now, before, style, brief=rows is not None and rows < _ROOMY)
    if not now.facts:
        return lines
    lines += [[], *_tiers(now.facts.get("tiers", ()), style)]
    classes, plan = _classes(now.facts.get("classes", ()), style), _plan(now.plan, style)
    if rows is None:
        return lines + _fitting(classes, None) + _fitting(plan, None)
    left = rows - len(lines)
    lines += _fitting(classes, left - min(sum(map(len, plan)), _LEAST_OF_PLAN))
    return lines + _fitting(plan, rows - len(lines))


def footer(interval: float, *, paused: bool) -> str:
    """The last row of the live view: the keys, and what they have done."""
    state = "paused: space goes on" if paused else "space pauses"
    return f"q quits  {state}  +/- every {interval:g} s"


def bar(part: float, whole: float, width: int, style: Style) -> str:
    """`part` of `whole` as a bar of `width` characters, the frame included."""
    inner = max(width - 2, 0)
    filled = min(max(part / whole, 0.0), 1.0) * inner if whole else 0.0
    if not style.unicode:
        return f"[{'#' * round(filled):-<{inner}}]"
    # U+2588 is a full block, and the seven after it are ever narrower ones
    full, eighths = divmod(round(filled * 8), 8)
    return f"[{'█' * full + (chr(0x2590 - eighths) if eighths else ''):<{inner}}]"


def _head(now: Sight, before: Sight | None, style: Style, *, brief: bool) -> list[Line]:
    """brief: each sentence is cut to one line, but for what is wrong."""
    facts = now.facts
    state = now.state or clean(str(facts.get("state", "unknown")))
    version = clean(str(facts.get("version", "")))
    name = f"tierd {version}".strip() if not now.state else "tierd"
    colour = render.state_colour(state)
    dot = "●" if style.unicode else "*"
    gap = " " * max(style.width - len(f"{dot} {name}: {state}") - len(now.clock), 2)
    head: Line = [(colour, dot), ("", f" {name}: "), (colour, state)]
    lines = [[*head, ("", gap + now.clock)] if not now.state else head]
    if now.state:
        if now.problem:
            lines += _field("Reason", now.problem, style)
        if now.hint:
            lines += _field("Try", now.hint, style)
        if facts:
            lines += _field("As of", f"{now.clock}, when it last answered", style)
    elif facts.get("reason"):
        lines += _field("Reason", str(facts["reason"]), style)
    if not facts:
        return lines
    # tierctl status has why the others are not used; here each line counts
    words = render.in_words({**facts, "bytes_per_second": 0, "source_reason": ""})
    if not now.state:
        words["Moving"] = _moving(now, before)
    for name in ("Source", "Placing", "Moving", "Moved"):
        if name in words:
            lines += _field(name, clean(words[name], style.width - 11) if brief else words[name], style)
    return lines


def _moving(now: Sight, before: Sight | None) -> str:
    text = f"{size(float(now.facts.get('bytes_per_second', 0.0)))}/s"
    seconds = now.at - before.at if before else 0.0
    if before is None or seconds <= 0:
        return text
    rates = []
    for word, key in (("up", "promoted_pages"), ("down", "demoted_pages")):
        pages = int(now.facts.get("counters", {}).get(key, 0)) - int(
            before.facts.get("counters", {}).get(key, 0)
        )
        if pages < 0:  # the daemon was started again
            return text
        rates.append(f"{word} {size(pages * PAGE_SIZE / seconds)}/s")
    return f"{text}; since the last look {', '.join(rates)}"


def _tiers(found: Sequence[Mapping[str, Any]], style: Style) -> list[Line]:
    rows = [("TIER", "KIND", "", "USE%", "USED", "FREE", "TOTAL")]
    amounts = []
    for tier in found:
        used, total = int(tier.get("used_bytes", 0)), int(tier.get("total_bytes", 0))
        free = int(tier.get("free_bytes", max(total - used, 0)))
        amounts.append((used, total))
        name, kind = clean(str(tier.get("name", "?")), 24), clean(str(tier.get("kind", "?")), 24)
        rows.append((name, kind, "", share(used, total), size(used), size(free), size(total)))
    if not amounts:
        return [[("", "no memory tiers known yet")]]
    width = min(style.width - max(map(len, _table(rows, "lllrrrr"))), _WIDEST_BAR)
    if width >= _NARROWEST_BAR:
        bars = [" " * width, *(bar(used, total, width, style) for used, total in amounts)]
        rows = [(*row[:2], drawn, *row[3:]) for row, drawn in zip(rows, bars, strict=True)]
    legend, *lines = _table(rows, "lllrrrr")
    drawn_lines: list[Line] = [[(BOLD, legend)]]
    for line in lines:
        left, bracket, rest = line.partition("[")
        inside, closing, right = rest.partition("]")
        drawn_lines.append([("", left + bracket), (GREEN, inside), ("", closing + right)])
    return drawn_lines


def _classes(found: Sequence[Mapping[str, Any]], style: Style) -> list[Group]:
    """A blank and the legend, and a row for each class. Nothing without classes."""
    if not found:
        return []
    name_limit = max(style.width // 4, 12)
    rows = [("CLASS", "PROMISE", "KEPT", "DRAM", "SLOW", "DRAM%", "LEAST", "MOST")]
    for one in found:
        dram, slow = int(one.get("dram_bytes", 0)), int(one.get("slow_bytes", 0))
        promise = clean(str(one.get("promise", "")), name_limit)
        rows.append(
            (
                clean(str(one.get("name", "?")), name_limit),
                promise or "-",
                "no" if one.get("broken") else "yes" if promise else "-",
                size(dram),
                size(slow),
                share(dram, dram + slow),
                size(int(one.get("least_bytes", 0))),
                size(int(one.get("most_bytes", 0))),
            )
        )
    legend, *lines = _table(rows, "lllrrrrr")
    colours = [YELLOW if one.get("broken") else "" for one in found]
    shown: list[Group] = [[[(colour, line)]] for colour, line in zip(colours, lines, strict=True)]
    return [[[], [(BOLD, legend)]], *shown]


def _plan(rows: Sequence[Mapping[str, Any]], style: Style) -> list[Group]:
    """A blank and what the plan comes to, and its steps, each on one line where its reason fits there."""
    total = render.steps(rows) if rows else "nothing to do"
    groups: list[Group] = [[[], [(BOLD, "Plan"), ("", f": {total}")]]]
    for row in rows:
        action, rest = render.step(row)
        because = f"because {clean(str(row['reason']))}" if row.get("reason") else ""
        step: Line = [(BOLD, action), ("", f" {rest}".rstrip())]
        if _cells(f"{action} {rest}  {because}") <= style.width:
            groups.append([[*step, ("", f"  {because}")] if because else step])
        else:
            groups.append([step, [("", f"    {because}")]])
    return groups


def _fitting(groups: Sequence[Group], rows: int | None) -> list[Line]:
    """The lines of as many `groups` as fit, the first of which is the title, and how many are left out."""
    if rows is None or sum(map(len, groups)) <= rows:
        return [line for group in groups for line in group]
    shown: list[Line] = []
    for place, group in enumerate(groups):
        if len(shown) + len(group) + 1 > rows:
            left_out = len(groups) - place
            return [*shown, [("", f"  and {left_out} more")]] if shown else []
        shown += group
    return shown


def _field(name: str, text: str, style: Style) -> list[Line]:
    first, *rest = render.wrap(text, style, 11)
    return [[("", f"{name:>9}: {first}")], *([("", f"{'':11}{line}")] for line in rest)]


def _table(rows: Sequence[Sequence[str]], alignment: str) -> list[str]:
    return render.table(rows, alignment, Style())


def _ascii(value: Any) -> Any:
    """`value` with escapes for what is not ASCII, at every depth."""
    if isinstance(value, str):
        return value.encode("ascii", "backslashreplace").decode("ascii")
    if isinstance(value, Mapping):
        return {key: _ascii(entry) for key, entry in value.items()}
    return [_ascii(entry) for entry in value] if isinstance(value, list | tuple) else value


def _cells(text: str) -> int:
    """Columns of a terminal that `text` takes."""
    return len(text) if text.isascii() else sum(map(_cell, text))


def _cell(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _painted(line: Line, columns: int | None, style: Style) -> str:
    """A line cut to the width of the terminal, if there is one, and coloured: colours take no room."""
    shown = []
    for colour, text in line:
        if columns is not None:
            text = _cut(text, columns)
            columns -= _cells(text)
        if text:
            shown.append(style.paint(colour, text) if colour else text)
    return "".join(shown)


def _cut(text: str, columns: int) -> str:
    if _cells(text) <= columns:
        return text
    taken = 0
    for place, character in enumerate(text):
        taken += _cell(character)
        if taken > columns:
            return text[:place]
    return text
