"""Sixty and more lies of ndctl and daxctl, as values; lying.py tells them to tierd-convert."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.kernel.fixtures.region import BLOCK, ISET, MIB, SimulatedRegion

Listing = dict[str, Any]
Act = Callable[[SimulatedRegion, tuple[str, ...]], object]


def _as_it_is(listing: Listing) -> bytes:
    return json.dumps(listing).encode()


@dataclass(frozen=True)
class Lie:
    """One lie.

    on: the command that is lied about (``list``, ``create-namespace``, ``system-ram``, ``devdax``,
    ``destroy-namespace``). scenario: one of lying.WANTED. script: what runs in the tool's place, beside a
    file `listing` which holds what the listing makes of the truth. does: what is done to the region all the
    same. after: how many calls are answered truly first. heals: whether the next run, with honest tools, has
    to come to what is asked for.
    """

    name: str
    on: str
    scenario: str
    script: str = "cat listing"
    does: Act | None = None
    listing: Callable[[Listing], bytes] = _as_it_is
    after: int = 0
    heals: bool = True


# ------------------------------------------------------------------------------------------------- the list


def _edit(change: Callable[[Listing], object]) -> Callable[[Listing], bytes]:
    """The listing with something changed in it."""

    def made(listing: Listing) -> bytes:
        changed = copy.deepcopy(listing)
        change(changed)
        return json.dumps(changed).encode()

    return made


def _region(listing: Listing) -> Any:
    return listing["regions"][0]


def _called(listing: Listing, label: str) -> Any:
    return next(n for n in _region(listing)["namespaces"] if n.get("name") == label)


def _swap(listing: Listing, key: str) -> None:
    """Our namespace and somebody else's change places in one thing."""
    ours, other = _called(listing, "tierd:pmem0"), _called(listing, "other")
    ours[key], other[key] = other[key], ours[key]


def _set(key: str, value: object, label: str = "tierd:pmem0") -> Callable[[Listing], bytes]:
    return _edit(lambda listing: _called(listing, label).update({key: value}))


def _of_region(key: str, value: object) -> Callable[[Listing], bytes]:
    return _edit(lambda listing: _region(listing).update({key: value}))


def _another_region(listing: Listing) -> None:
    listing["regions"].append({**_region(listing), "dev": "region1", "namespaces": []})


_DEVICES = {"id": 0, "devices": [{"chardev": "../../nd/devices/region0"}]}
_NOISE = b"warning: region0: something\n"

_LISTINGS: tuple[tuple[str, str, Callable[[Listing], bytes]], ...] = (
    ("null", "new", lambda _: b"null"),
    ("an empty object", "less", lambda _: b"{}"),
    ("an empty array", "none", lambda _: b"[ ]"),
    ("a number", "new", lambda _: b"17"),
    ("half of the JSON", "less", lambda listing: _as_it_is(listing)[: len(_as_it_is(listing)) // 2]),
    ("the JSON twice", "new", lambda listing: _as_it_is(listing) * 2),
    ("a warning before the JSON", "none", lambda listing: _NOISE + _as_it_is(listing)),
    ("a deep nest", "new", lambda _: b"[" * 100_000),
    ("a number of 5000 digits", "new", lambda listing: _of_region("iset_id", "HERE")(listing).replace(
        b'"HERE"', b"9" * 5000)),
    ("infinity for a number", "new", _of_region("iset_id", float("inf"))),
    ("sizes in words", "less", _of_region("iset_id", "4.00 GiB (4.29 GB)")),
    ("true for a number", "new", _of_region("iset_id", True)),
    ("an iset_id that is equal in its low 64 bits", "new", _of_region("iset_id", ISET + (1 << 64))),
    ("an array for a region", "new", _edit(lambda listing: listing.update(regions=[[]]))),
    ("text for the namespaces", "less", _of_region("namespaces", "none")),
    ("no namespaces", "more", _of_region("namespaces", [])),
    ("no namespaces, when all is to be given back", "none", _of_region("namespaces", [])),
    ("a name that no namespace has", "none", _set("dev", "namespace0.77")),
    ("a device that is not there", "none", _set("daxregion", {"devices": [{"chardev": "dax9.9"}]})),
    ("no name of a namespace", "less", _set("dev", None)),
    ("a number for a UUID", "none", _set("uuid", 5)),
    ("no UUID", "none", _set("uuid", None)),
    ("another's UUID", "none", _edit(lambda listing: _swap(listing, "uuid"))),
    ("another's label UUID", "none", _edit(lambda listing: _swap(listing, "raw_uuid"))),
    ("another's name", "none", _edit(lambda listing: _swap(listing, "dev"))),
    ("another's name while growing", "more", _edit(lambda listing: _swap(listing, "dev"))),
    ("another's device", "none", _edit(lambda listing: _swap(listing, "daxregion"))),
    ("another's device while shrinking", "less", _edit(lambda listing: _swap(listing, "daxregion"))),
    ("another's label", "none", _edit(lambda listing: _swap(listing, "name"))),
    ("our label on another's memory", "new", _set("name", "tierd:pmem0", "other")),
    ("our label on a file system", "new", _set("name", "tierd:pmem0", "prod")),
    ("our label, and devdax, on a file system", "new", _edit(lambda listing: _called(listing, "prod").update(
        name="tierd:pmem0", mode="devdax"))),
    ("a namespace twice", "none", _edit(lambda listing: _region(listing)["namespaces"].append(
        _called(listing, "tierd:pmem0")))),
    ("another's namespace is gone", "more", _edit(lambda listing: _region(listing)["namespaces"].remove(
        _called(listing, "prod")))),
    ("two regions with one iset_id", "new", _edit(_another_region)),
    ("a path for a region's name", "new", _of_region("dev", "../../../../etc")),
    ("a path for a namespace's name", "none", _set("dev", "/etc")),
    ("a path for a device's name", "none", _set("daxregion", _DEVICES)),
    ("an option for a namespace's name", "none", _set("dev", "--all")),
    ("raw for devdax", "none", _set("mode", "raw")),
    ("everything disabled", "less", _edit(lambda listing: [
        n.update(state="disabled") for n in _region(listing)["namespaces"]])),
    ("a region of another type", "new", _of_region("type", "volatile")),
    ("escapes in a label", "less", _set("name", "tierd:pmem0\n\x1b[2J", "other")),
    ("DIMMs that are numbers", "new", _edit(lambda listing: listing.update(dimms=[1, 2]))),
)  # fmt: skip

_ENDINGS = {
    "nothing is said": "exit 0",
    "garbage": "head -c 100000 /dev/urandom",
    "100 MB": "head -c 100000000 /dev/zero",
    "a hang": "exec sleep 60",
    "a hang that no signal but one ends": "trap '' TERM; while :; do sleep 1; done",
    "a complaint": "echo 'Device or resource busy' >&2; exit 240",
    "a kill": "kill -9 $$",
}

# ------------------------------------------------------------------------------------------------- the acts


def _truly(machine: SimulatedRegion, argv: tuple[str, ...]) -> int:
    return machine.ndctl(list(argv[1:])) if argv[0] == "ndctl" else machine.daxctl(list(argv[1:]))


def _make(machine: SimulatedRegion, argv: tuple[str, ...], **other: Any) -> None:
    size, label = int(argv[argv.index("-s") + 1]), argv[argv.index("-n") + 1]
    machine.create(other.get("size", size), other.get("label", label), other.get("mode", "devdax"))


def _make_two(machine: SimulatedRegion, argv: tuple[str, ...]) -> None:
    _make(machine, argv)
    _make(machine, argv)


def _other_device(machine: SimulatedRegion, argv: tuple[str, ...]) -> None:
    """daxctl says that it has done it to another device, and has done nothing."""
    machine.note(f"{argv[3]} of another device is claimed")


def _in_the_wrong_zone(machine: SimulatedRegion, argv: tuple[str, ...]) -> None:
    _truly(machine, argv)
    for path in machine.root.memory_blocks.glob("memory*/valid_zones"):
        if path.read_text() != "Movable\n" or int(path.parent.name[6:]) >= 42:
            path.write_text("Normal\n")


def _half(machine: SimulatedRegion, argv: tuple[str, ...]) -> None:
    _truly(machine, argv)
    for number in machine.online()[-2:]:
        (machine.root.memory_blocks / f"memory{number}/state").write_text("offline\n")


_ACTS: tuple[Lie, ...] = (
    *(Lie(f"create: {ending}", "create-namespace", "new", script) for ending, script in _ENDINGS.items()),
    *(
        Lie(f"create: {ending}, and it is made", "create-namespace", "more", _ENDINGS[ending], _truly)
        for ending in ("a hang", "a complaint", "100 MB")
    ),
    Lie("create: another label", "create-namespace", "new", "exit 0",
        lambda machine, argv: _make(machine, argv, label="mine"), heals=False),
    Lie("create: another mode", "create-namespace", "new", "exit 0",
        lambda machine, argv: _make(machine, argv, mode="fsdax"), heals=False),
    Lie("create: half the size", "create-namespace", "new", "exit 0",
        lambda machine, argv: _make(machine, argv, size=3 * BLOCK), heals=False),
    Lie("create: too small for a block", "create-namespace", "new", "exit 0",
        lambda machine, argv: _make(machine, argv, size=16 * MIB), heals=False),
    Lie("create: two of them", "create-namespace", "new", "exit 0", _make_two, heals=False),
    *(Lie(f"system-ram: {ending}", "system-ram", "new", script) for ending, script in _ENDINGS.items()),
    *(
        Lie(f"system-ram: {ending}, and it is done", "system-ram", "more", _ENDINGS[ending], _truly)
        for ending in ("a hang", "a complaint", "garbage")
    ),
    Lie("system-ram: 0 devices", "system-ram", "new", "echo reconfigured 0 devices >&2"),
    Lie("system-ram: another device", "system-ram", "more",
        'echo \'[{"chardev": "dax0.1", "mode": "system-ram"}]\'', _other_device),
    Lie("system-ram: half of the blocks", "system-ram", "new", "exit 0", _half),
    Lie("system-ram: the wrong zone", "system-ram", "new", "exit 0", _in_the_wrong_zone),
    *(Lie(f"devdax: {ending}", "devdax", "none", script) for ending, script in _ENDINGS.items()),
    Lie("devdax: a hang, and it is done", "devdax", "none", _ENDINGS["a hang"], _truly),
    *(Lie(f"destroy: {ending}", "destroy-namespace", "less", script) for ending, script in _ENDINGS.items()),
    Lie("destroy: a complaint, and it is done", "destroy-namespace", "none", _ENDINGS["a complaint"],
        _truly),
)  # fmt: skip

LIES = (
    *(Lie(f"list: {ending}", "list", "less", script) for ending, script in _ENDINGS.items()),
    *(Lie(f"list: {name}", "list", scenario, listing=listing) for name, scenario, listing in _LISTINGS),
    *(
        Lie(f"list: {name}, after a true one", "list", scenario, listing=listing, after=2)
        for name, scenario, listing in _LISTINGS
        if scenario in ("none", "less")
    ),
    *_ACTS,
)
