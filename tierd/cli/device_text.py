"""What `tierctl list devices` prints, as text made of the object that `--json` prints. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tierd.cli.render import Style, share, table, wrap
from tierd.core.text import clean, ranges, size

Rows = Sequence[Mapping[str, Any]]
Table = list[tuple[str, ...]]
"""The first row is the legend."""


def devices(found: Mapping[str, Any], style: Style) -> str:
    """The picture, from the modules to the tiers: a table of each kind, and below it what tierd could do
    with each part, and why not. found: as core.picture_text.picture_document makes it."""
    blocks = found["memory_blocks"]
    parts = [
        _section(_dimms(found["dimms"]), "lrlll", style),
        _section(_regions(found["regions"]), "llrrlll", style, found["regions"]),
        _section(_namespaces(found["namespaces"]), "lrllll", style, found["namespaces"]),
        _section(_memdevs(found["cxl_memdevs"]), "lrrrll", style, found["cxl_memdevs"]),
        _section(_cxl_regions(found["cxl_regions"]), "lrlll", style, found["cxl_regions"]),
        _section(_dax_devices(found["dax_devices"]), "llrlll", style, found["dax_devices"]),
        _section(_blocks(blocks), "lrlll", style),
        _section(_nodes(found["nodes"]), "llrrll", style, found["nodes"]),
        _section(_tiers(found["tiers"]), "lllrr", style),
        [line for words in (*found["faults"], *found["unseen"]) for line in _item(words, style)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _section(rows: Table, alignment: str, style: Style, parts: Rows = ()) -> list[str]:
    if len(rows) == 1:
        return []
    lines = table([tuple(clean(cell, 60) for cell in row) for row in rows], alignment, style)
    for part in parts:
        lines += _says(part, style)
    return lines


def _says(part: Mapping[str, Any], style: Style) -> list[str]:
    """Who uses a part, what tierd could do with it, and the reasons against."""
    lines = []
    if not part.get("namespace"):  # which has the same users
        for user in part.get("users", ()):
            lines += _item(f"{part['name']}: used by {user}", style)
    if part.get("could") is not None:
        because = [f"because {reason['words']}" for reason in part["could"]["reasons"]]
        lines += _item(", ".join([f"{part['name']}: {part['could']['words']}", *because[:1]]), style)
        lines += [line for words in because[1:] for line in _item(f"and {words}", style, 4)]
    if part.get("words"):
        lines += _item(part["words"], style)
    for cache in part.get("memory_side_caches", ()):
        lines += _item(cache["words"], style)
    if part.get("reason"):
        lines += _item(f"node {part['number']}: nothing can be promoted or demoted, {part['reason']}", style)
    return lines


def _item(text: str, style: Style, indent: int = 2) -> list[str]:
    first, *rest = wrap(text, style, 4)
    bullet = "- " if indent == 2 else ""
    return [f"{'':{indent}}{bullet}{first}", *(f"    {line}" for line in rest)]


def _dimms(rows: Rows) -> Table:
    found: Table = [("DIMM", "SIZE", "SERIAL", "HEALTH", "REGIONS")]
    for row in rows:
        state = [row["health"] or "not told", *row["flags"]]
        if row["security"] not in (None, "disabled"):
            state.append(row["security"])
        found.append(
            (row["name"], _size(row["size"]), row["serial"] or "-", ", ".join(state), _names(row["regions"]))
        )
    return found


def _regions(rows: Rows) -> Table:
    found: Table = [("REGION", "KIND", "SIZE", "FREE", "NODE", "ISET_ID", "DIMMS")]
    for row in rows:
        found.append(
            (
                row["name"],
                row["kind"],
                _size(row["size"]),
                _size(row["available"]),
                _number(row["target_node"]),
                row["iset_id"] or "-",
                _names(row["dimms"]),
            )
        )
    return found


def _namespaces(rows: Rows) -> Table:
    found: Table = [("NAMESPACE", "SIZE", "MODE", "DEVICE", "LABEL", "UUID")]
    for row in rows:
        mode = row["mode"] if row["enabled"] else f"{row['mode']}, disabled"
        found.append(
            (
                row["name"],
                _size(row["size"]),
                mode,
                row["device"] or "-",
                row["label"] or "-",
                row["uuid"] or "-",
            )
        )
    return found


def _memdevs(rows: Rows) -> Table:
    found: Table = [("CXL", "VOLATILE", "FREE", "PERSISTENT", "SERIAL", "REGIONS")]
    for row in rows:
        sizes = (_size(row["volatile"]), _size(row["free"]), _size(row["persistent"]))
        found.append((row["name"], *sizes, row["serial"] or "-", _names(row["regions"])))
    return found


def _cxl_regions(rows: Rows) -> Table:
    found: Table = [("CXL REGION", "SIZE", "MODE", "CXL", "DAX")]
    for row in rows:
        mode = row["mode"] if row["enabled"] else f"{row['mode']}, disabled"
        found.append((row["name"], _size(row["size"]), mode, _names(row["memdevs"]), _names(row["devices"])))
    return found


def _dax_devices(rows: Rows) -> Table:
    found: Table = [("DAX", "KIND", "SIZE", "MODE", "NODE", "BLOCKS")]
    for row in rows:
        blocks = "-"
        if row["blocks"] is not None and row["mode"] == "system-ram":
            blocks = f"{row['movable_blocks']} of {row['blocks']} movable"
        mode = row["mode"] or row["driver"] or "no driver"
        size_ = _size(row["size"])
        found.append((row["name"], row["kind"], size_, mode, _number(row["target_node"]), blocks))
    return found


def _blocks(found: Mapping[str, Any]) -> Table:
    rows: Table = [("BLOCKS", "SIZE", "STATE", "NODE", "DEVICE")]
    for run in found["runs"]:
        last = run["first"] + run["count"] - 1
        name = f"memory{run['first']}" + (f"-{last}" if run["count"] > 1 else "")
        whole = None if found["block_size"] is None else run["count"] * found["block_size"]
        zone = f" {run['zone']}" if run["zone"] else ""
        state = f"online{zone}" if run["online"] else "offline"
        rows.append((name, _size(whole), state, _number(run["node"]), run["device"] or "-"))
    return rows


def _nodes(rows: Rows) -> Table:
    found: Table = [("NODE", "KIND", "TOTAL", "AVAILABLE", "CPUS", "TIER")]
    for row in rows:
        found.append(
            (
                str(row["number"]),
                row["kind"],
                size(row["total"]),
                size(row["available"]),
                "yes" if row["has_cpus"] else "no",
                row["tier"] or "-",
            )
        )
    return found


def _tiers(rows: Rows) -> Table:
    found: Table = [("TIER", "KIND", "NODES", "TOTAL", "USED")]
    for row in rows:
        used = share(row["total"] - row["free"], row["total"])
        found.append((row["name"], row["kind"], ranges(row["nodes"]), size(row["total"]), used))
    return found


def _size(count: int | None) -> str:
    return "-" if count is None else size(count)


def _number(number: int | None) -> str:
    return "-" if number is None else str(number)


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "-"
