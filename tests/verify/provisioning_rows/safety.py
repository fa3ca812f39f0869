"""What holds data: a region full of namespaces of every mode with every content, and namespaces in use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.verify.provisioning_rows import by_uuid
from tests.verify.provisioning_rows.by_uuid import Asked
from tests.verify.provisioning_rows.fill_namespaces import ACCEPTABLE, CONTENTS, MODES
from tests.verify.provisioning_rows.server import RUN, Held, listed, ready
from tests.verify.table import Figure, Row, Stage

CELLS = tuple(f"{mode}/{content}" for mode in MODES for content in CONTENTS)
SIGNATURES = {
    **{content: content.lower() for content in CONTENTS},
    **{"LUKS": "crypto_LUKS", "LVM": "LVM2_member", "MD": "linux_raid_member", "MBR": "dos", "btt": "btt"},
    "random bytes": "unknown data",
}
"""What blkid calls each content; a btt it does not know, and random bytes and zeros are nothing to it."""
UNKNOWN = frozenset({"btt", "random bytes", "zeros"})
FILL_SECONDS = 480


@dataclass(frozen=True)
class Attempt:
    """One way of asking tierd for what others hold. size: of the policy's request. code: the exit status of
    tierd-convert that is right."""

    name: str
    size: str
    code: int


ATTEMPTS = (
    # the whole region, more than is free: nothing is done at all
    Attempt("more than is free", "{whole}MiB", 69),
    # all that there is room for: what is free, and nothing that is not
    Attempt("all", "all", 0),
)
"""Everything that is tried on the matrix, planned and applied in turn, after all that by_uuid.ask
tries."""


@dataclass(frozen=True)
class Seen:
    """What became of the matrix. real: cells in which blkid finds the content, before. reasons: why tierd
    leaves each alone, as `tierctl list devices` says it. asked: what it says when asked for each by its
    UUID; taken: the blocks that the acceptable one became then."""

    cells: tuple[str, ...]
    real: int
    destroyed: tuple[str, ...]
    renamed: tuple[str, ...]
    verdicts: Mapping[str, str]
    reasons: dict[str, str]
    codes: tuple[int, ...]
    blocks: int
    asked: Asked
    taken: int


def _see(stage: Stage, kernel: str) -> Seen:
    server = ready(stage, kernel)
    guest = server.guest
    guest.put(Path(__file__).with_name("fill_namespaces.py"), "/run/fill_namespaces.py")
    made = json.loads(
        guest.output(f"python3 /run/fill_namespaces.py {server.region.name}", timeout=FILL_SECONDS)
    )
    kinds = {cell["label"]: cell["blkid"] for cell in made}
    before = {label: held for label, held in server.held().items() if label in kinds}
    sums = server.checksums(before)
    asked = by_uuid.ask(server, tuple(before))
    codes = []
    for attempt in ATTEMPTS:
        server.want(attempt.size.format(whole=server.region.size >> 20))
        guest.run("tierctl provision plan", check=False, timeout=120)
        codes.append(guest.run(RUN + " --wait 1", check=False, timeout=400).returncode)
    blocks = server.blocks().count("online Movable")
    seen = {str(n["label"]): n for n in listed(server)}
    after = server.held()
    sums_after = server.checksums(before)
    taken = by_uuid.take(server)
    others = {label: held for label, held in before.items() if label != ACCEPTABLE}
    sums_after |= server.checksums(others)  # one that is taken leaves the others alone
    stage.close()
    could = {label: n["could"] for label, n in seen.items() if label in kinds}
    return Seen(
        cells=tuple(before),
        real=sum(SIGNATURES[label.partition("/")[2]] in said for label, said in kinds.items() if said),
        destroyed=tuple(label for label in before if sums[label] != sums_after[label]),
        renamed=tuple(label for label, held in before.items() if not _same(held, after.get(label))),
        verdicts={label: found["verdict"] for label, found in could.items()},
        reasons={label: " ".join(r["words"] for r in found["reasons"]) for label, found in could.items()},
        codes=tuple(codes),
        blocks=blocks,
        asked=asked,
        taken=taken,
    )


def _same(before: Held, after: Held | None) -> bool:
    return after is not None and (before.uuid, before.size, before.start) == (
        after.uuid,
        after.size,
        after.start,
    )


def matrix(kernel: str) -> Row:
    def measure(stage: Stage) -> Figure:
        seen = stage.once(("matrix", kernel), lambda: _see(stage, kernel))
        refused = sum(verdict == "refused" for verdict in seen.verdicts.values())
        known = sum(content not in UNKNOWN for content in CONTENTS) * (len(MODES) - 1)
        lost = {*seen.destroyed, *seen.renamed}
        text = (
            f"{len(seen.cells)} namespaces, {seen.real} of {known} signatures seen by blkid, {len(lost)}"
            f" destroyed, {refused} left alone with a reason; what was free became {seen.blocks} blocks"
        )
        values = {
            "kernel": kernel,
            "cells": seen.cells,
            "destroyed": sorted(lost),
            "exit": seen.codes,
            "attempts": [attempt.name for attempt in ATTEMPTS],
        }
        whole = set(seen.cells) == set(CELLS) and seen.real == known and refused == len(CELLS)
        # what was free has become memory, so tierd was at work
        worked = seen.codes == tuple(attempt.code for attempt in ATTEMPTS) and seen.blocks > 0
        return Figure(whole and worked and not lost, text, values)

    return Row(
        f"safety-matrix-{kernel}",
        f"{len(MODES)} modes x {len(CONTENTS)} contents, unmounted, without consent, the policy wants the"
        f" whole region and all the room; checksums of all that each holds, by QEMU, Linux {kernel}",
        "0 destroyed",
        measure,
    )


def named(kernel: str) -> Row:
    def measure(stage: Stage) -> Figure:
        seen = stage.once(("matrix", kernel), lambda: _see(stage, kernel))
        asked = [label for label in seen.cells if label.partition("/")[2] != "zeros"]
        missing = [label for label in asked if not _names(seen, label)]
        empty = {f"{mode}/zeros" for mode in MODES if mode != "sector"}
        accepted, faults = set(seen.asked.accepted), [*seen.asked.faults]
        if accepted != empty:
            faults.append(f"what holds nothing is {', '.join(sorted(empty))}, accepted {sorted(accepted)}")
        text = (
            f"{len(asked) - len(missing)} of {len(asked)} refusals name what is in the namespace,"
            f" {len(accepted)} of {len(empty)} that hold nothing are accepted, one became {seen.taken}"
            " blocks"
        ) + (": " + "; ".join([*missing, *faults][:4]) if missing or faults else "")
        values = {"kernel": kernel, "missing": missing, "faults": faults}
        return Figure(bool(asked) and not missing and not faults and seen.taken > 0, text, values)

    return Row(
        f"safety-named-{kernel}",
        f"the same, each asked for by its UUID: what was found is named where it is refused, Linux {kernel}",
        "each refusal, zeros accepted",
        measure,
    )


def _names(seen: Seen, label: str) -> bool:
    mode, _, content = label.partition("/")
    said = (seen.reasons | seen.asked.words).get(label, "").lower()
    words = {content.lower(), SIGNATURES[content].lower()}
    # a sector namespace is refused for what it is
    return any(word in said for word in words) or (mode == "sector" and "sector" in said)
