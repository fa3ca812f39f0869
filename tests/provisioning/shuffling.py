"""Namespaces whose names are given anew again and again, and a share of tierd's among them, on a simulated
region: tests/provisioning/test_shuffles.py and a row of the table of provisioning."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.fixtures.region import MIB, SimulatedRegion
from tests.provisioning.lies import Lie
from tests.provisioning.lying import LyingTools, convert_once, ours, wrong_act
from tierd.kernel.tools import ToolResult

OTHERS = ("prod-a", "prod-b", "prod-c")


@dataclass(frozen=True)
class Shuffled:
    """What came of many shuffles. converted: runs that did something. wrong: in words."""

    shuffles: int
    renamed: int
    converted: int
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class _Shuffling(LyingTools):
    """Honest tools, whose acts are judged."""

    def run(self, argv: tuple[str, ...], *, deadline: float = 60.0) -> ToolResult:
        if argv[1] not in ("list", "settle"):
            self.wrong.extend(wrong_act(self.machine, argv))
            self.seen.append(argv[1])
        return self.truly(argv)


def shuffle(machine: SimulatedRegion, chance: random.Random) -> int:
    """As a reboot after some came and went: every namespace gets another number, and no device has a driver
    but device_dax. How many changed their name."""
    namespaces = machine.load()
    numbers = chance.sample(range(8), len(namespaces))
    changed: int = sum(entry["id"] != number for entry, number in zip(namespaces, numbers, strict=True))
    for entry, number in zip(namespaces, numbers, strict=True):
        entry["id"], entry["driver"] = number, "device_dax"
    machine.save([])
    machine.draw()
    machine.save(namespaces)
    machine.draw()
    return changed


def facts(machine: SimulatedRegion) -> dict[str, tuple[object, ...]]:
    """What of the others must stay: all but their names."""
    keys = ("start", "size", "uuid", "raw_uuid", "mode")
    return {n["label"]: tuple(n[key] for key in keys) for n in machine.load() if n["label"] in OTHERS}


def run(directory: Path, shuffles: int, seed: int) -> Shuffled:
    """Three namespaces of others, one as devdax, and tierd's share, which gets another size after each
    shuffle; one of the others is made anew now and then, so that its place and UUID change too."""
    chance = random.Random(seed)
    machine = SimulatedRegion(directory).begin()
    modes = dict(zip(OTHERS, ("fsdax", "devdax", "raw"), strict=True))
    for label, mode in modes.items():
        machine.create(chance.choice((160, 288, 416)) * MIB, label, mode)
    tools = _Shuffling((machine.bin,), machine=machine, lie=Lie("none", "nothing", "new"))
    wrong: list[str] = []
    renamed = converted = 0
    for number in range(shuffles):
        renamed += shuffle(machine, chance)
        if chance.random() < 0.3:
            label = chance.choice(OTHERS)
            kept = [n for n in machine.load() if n["label"] != label]
            machine.save(kept)
            machine.draw()
            if machine.create(chance.choice((160, 288, 416)) * MIB, label, modes[label]) < 0:
                machine.create(32 * MIB, label, modes[label])
        before, blocks = facts(machine), chance.randrange(0, 12)
        (machine.root.proc / "sys/kernel/random/boot_id").write_text(f"boot-{number}\n")
        seen = len(tools.seen)
        code, said, _ = convert_once(machine, tools, blocks)
        converted += len(tools.seen) > seen
        if facts(machine) != before:
            wrong.append(f"shuffle {number}: what others have became {facts(machine)}, and was {before}")
        if code == 0 and ours(machine) != ["Movable"] * blocks:
            wrong.append(f"shuffle {number}: {blocks} blocks are asked for: {ours(machine)}")
        if code not in (0, 69):
            wrong.append(f"shuffle {number}: exit status {code}: {said}")
        wrong += tools.wrong
        tools.wrong.clear()
    return Shuffled(shuffles, renamed, converted, tuple(wrong))
