"""What may never be, whatever goes wrong: how often it was, of how many that were looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.faults.case import AUTHORISATION, CORRUPTED, LOST, NEVER, WRONG, Counts, added
from tests.verify.table import RESULTS
from tests.vm.records import PAGE

TABLE = "faults"
_OTHERS = ("service", "provisioning", "engine")


def kept(name: str) -> Mapping[str, Any]:
    """The last results of a table, by row; nothing where there are none."""
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text())["rows"]) if path.exists() else {}


def all_of(rows: Mapping[str, Any]) -> Counts:
    """Of the matrix, by its rows, and of what other tables counted of the same when they were last run."""
    own = (_pairs(row["values"].get("never", {})) for row in rows.values())
    others = (counts for name in _OTHERS for counts in _counted(name, kept(name)))
    return added(*own, *others)


def _pairs(counts: Mapping[str, Sequence[int]]) -> Counts:
    return {name: (bad, n) for name, (bad, n) in counts.items()}


def _counted(table: str, rows: Mapping[str, Any]) -> Iterator[Counts]:
    for name, found in rows.items():
        values = found["values"]
        match table, name.partition("-")[0]:
            case "service", "authorisation" if "cells" in values:
                yield {AUTHORISATION: (len(values["wrong"]), sum(map(len, values["cells"].values())))}
            case "provisioning", "safety" if "cells" in values:
                yield {LOST: (len(values["destroyed"]), len(values["cells"]))}
            case "provisioning", "shuffles" if "conversions" in values:
                yield {WRONG: (len(values["faults"]), values["conversions"])}
            case "engine", "integrity" if "checked" in values:
                yield {CORRUPTED: (values["bad_bytes"], values["checked"] * PAGE)}


def lines(counts: Counts) -> list[str]:
    """A line for each of NEVER. What nobody has looked at has no figure."""
    shown = []
    for name in NEVER:
        bad, n = counts.get(name, (0, 0))
        shown.append(f"  {'holds' if not bad and n else 'SHORT':6} {name:56} {bad} of {n:,}")
    return shown
