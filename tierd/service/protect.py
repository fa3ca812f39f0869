"""tierd-protect: keep memory that is promised DRAM there by what systemd and the kernel offer for it.

Run as root by tierd-protect.service, whenever the daemon sees that a guaranteed class has come to DRAM, or
that a class with a promise has grown, and with --release when tierd stops. It reads the policy itself: the
daemon only says when.
Exit status: 0 done, 1 a unit could not be set, 2 usage, 77 not root, 78 the policy is bad.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tierd.config
from tierd.core.assignment import ClassAssigner
from tierd.core.classes import DramShare
from tierd.core.policy import EngineMode, Policy
from tierd.core.protection import (
    LAST,
    Guard,
    ProtectionPlan,
    Step,
    UnitMemory,
    Wish,
    plan_protection,
    topmost,
    unit_of,
    with_parents,
)
from tierd.core.text import size
from tierd.errors import ConfigError, DeniedError, MalformedError, TierdError
from tierd.kernel.occupancy import read_charged, read_occupancy
from tierd.kernel.paths import Root
from tierd.kernel.processes import cgroups
from tierd.kernel.settings import write_whole
from tierd.kernel.topology import read_topology
from tierd.service.class_shares import OWN_KINDS
from tierd.service.events import EventType, Priority
from tierd.service.one_shot import Exit, failure, say
from tierd.service.systemd_units import Units

LEDGER = Path("/run/tierd/protected.json")
"""What was set before, of each unit that is protected. A reboot forgets it, and what was set."""
PROTECTED = EventType("protected", "6c76741a0a5948d6bc21824679527786", Priority.INFO)
RELEASED = EventType("released", "c686ee6fcd084a358dabed5076bfc097", Priority.INFO)
UNPROTECTED = EventType("not-protected", "b2a13895048c498f85a598d69fcf5e3d", Priority.WARNING)
EVENT_TYPES = (PROTECTED, RELEASED, UNPROTECTED)


def main(argv: Sequence[str] | None = None) -> int:
    """The program; its exit status. Raises nothing."""
    parser = argparse.ArgumentParser(
        prog="tierd-protect",
        description="Keep the memory of the classes that are promised DRAM there: set MemoryMin= of their"
        " units, and AllowedMemoryNodes= where all of it is guaranteed, until the next boot.",
        epilog="exit status: 0 done, 1 a unit could not be set, 2 usage, 77 not root, 78 the policy is bad",
    )
    parser.add_argument("--release", action="store_true", help="put back what was set before")
    release = parser.parse_args(argv).release
    try:
        if os.geteuid() != 0:
            raise DeniedError("only root may change units")
        policy = None if release else tierd.config.load(None)
        return protect(Root(), Units(), policy, LEDGER)
    except ConfigError as error:
        say(UNPROTECTED, f"the policy cannot be used: {error.problems[0]}", {})
        return Exit.CONFIG
    except Exception as error:
        words, code = failure(error)
        say(UNPROTECTED, words, {})
        return code


def protect(root: Root, units: Units, policy: Policy | None, ledger: Path) -> Exit:
    """Make units as `policy` wants them, all as they were without one. Raises TierdError, OSError."""
    guards = read_ledger(ledger)
    topology = read_topology(root)
    dram = frozenset(node.number for node in topology.dram)
    places = policy is not None and policy.engine.mode is EngineMode.PLACE and topology.tiered
    needs = dict(promised_units(root, policy, dram, guards)) if policy is not None and places else {}
    wanted = with_parents(needs)
    found = {unit: memory for unit in {*wanted, *guards} if (memory := units.read(unit)) is not None}
    return carry_out(plan_protection(wanted, found, guards, dram), units, guards, ledger)


def promised_units(
    root: Root, policy: Policy, dram: frozenset[int], guards: Collection[str]
) -> Iterator[tuple[str, Wish]]:
    """The cgroups of units that belong to a class with a promise, with all below them, and what each needs.
    Rules for users and commands say nothing of a unit. guards: units that are protected already."""
    assigner = ClassAssigner(policy.classes)

    def promised(cgroup: str) -> DramShare:
        found = assigner.find(cgroup, -1, "")
        return found.service_class.dram if found.rule and policy.processes.selects(cgroup) else DramShare()

    known = tuple(cgroups(root, 0))
    for cgroup in topmost(known, lambda cgroup: promised(cgroup).guaranteed):
        fast, slow = _held(root, cgroup, dram)
        unit = unit_of(cgroup)
        # where much is missing it comes up page by page first: the kernel would move it in one go
        if unit and (slow <= LAST or unit in guards):
            reason = f"it is guaranteed DRAM, and has {size(fast + slow)}"
            yield cgroup, Wish(max(fast + slow, read_charged(root, cgroup)), True, reason=reason)
    for cgroup in topmost(known, lambda cgroup: promised(cgroup).minimum is not None):
        if unit_of(cgroup):
            charged = read_charged(root, cgroup)
            reason = f"it is promised DRAM ({promised(cgroup).words}), and has {size(charged)} in all"
            yield cgroup, Wish(charged, reason=reason)


def _held(root: Root, cgroup: str, dram: frozenset[int]) -> tuple[int, int]:
    """Bytes in DRAM and elsewhere."""
    try:
        held = read_occupancy(root, cgroup, OWN_KINDS)
    except TierdError:
        return 0, 0  # it is gone
    fast = sum(amount for node, amount in held.items() if node in dram)
    return fast, sum(held.values()) - fast


def carry_out(plan: ProtectionPlan, units: Units, guards: dict[str, Guard], ledger: Path) -> Exit:
    """Do all steps, each written down before, and say so."""
    for unit in plan.forgotten:
        del guards[unit]
    code = Exit.OK
    for step in plan.steps:
        before = guards.get(step.unit)
        if step.guard:
            guards[step.unit] = step.guard
            write_ledger(ledger, guards)
        try:
            units.set(step.unit, step.to)
        except TierdError as error:
            say(UNPROTECTED, f"{step.unit} cannot be set: {error}", {"TIERD_UNIT": step.unit})
            code = Exit.FAILED
            guards.pop(step.unit)
            if before:
                guards[step.unit] = before
            continue
        _tell(step)
        if not step.guard:
            del guards[step.unit]
    write_ledger(ledger, guards)
    for words in plan.conflicts:
        say(UNPROTECTED, words, {})
    return code


def _tell(step: Step) -> None:
    nodes = " ".join(map(str, sorted(step.to.nodes)))
    fields = {"TIERD_UNIT": step.unit, "TIERD_NODES": nodes, "TIERD_MINIMUM_BYTES": str(step.to.minimum)}
    kind = PROTECTED if step.guard else RELEASED
    where = f"nodes {nodes}" if nodes else "all nodes"
    words = (
        f"{step.unit} has memory on {where}, {size(step.to.minimum)} of it never reclaimed: {step.reason}"
    )
    say(kind, words, fields)


def read_ledger(path: Path) -> dict[str, Guard]:
    """What is protected, by unit. Raises MalformedError, OSError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {unit: Guard(_memory(one["before"]), _memory(one["set"])) for unit, one in document.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MalformedError(f"{path} is not what tierd-protect writes: {error}") from error


def write_ledger(path: Path, guards: Mapping[str, Guard]) -> None:
    """Replace it. Raises OSError."""
    if not guards:
        path.unlink(missing_ok=True)
        return
    document = {
        unit: {"before": _plain(guard.before), "set": _plain(guard.set)} for unit, guard in guards.items()
    }
    write_whole(path, json.dumps(document, indent=1) + "\n")


def _plain(memory: UnitMemory) -> dict[str, Any]:
    return {"nodes": sorted(memory.nodes), "minimum": memory.minimum}


def _memory(document: Mapping[str, Any]) -> UnitMemory:
    return UnitMemory(frozenset(int(node) for node in document["nodes"]), int(document["minimum"]))


if __name__ == "__main__":
    sys.exit(main())
