"""tierd-drain ISET_ID: empty a region that an operator has marked as drained, so that it can be removed.

Run as root by tierd-drain@ISET_ID.service, which `tierctl drain` starts. Nothing is destroyed:
namespaces and their labels stay. Exit status: 0 nothing of the region is memory, 1 a step failed or it was
stopped (what was being emptied is online again), 2 usage, 69 refused with the reasons, 75 a request
holds the lock and gets no further, 77 not root.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from tierd.core.drain import DrainPlan, find_region, hindrances, plan_drain
from tierd.core.provision import Verdict
from tierd.errors import DeniedError, TierdError
from tierd.kernel import intents
from tierd.kernel.drained import Drained, read_drained
from tierd.kernel.in_use import users_of
from tierd.kernel.paths import Root
from tierd.kernel.picture import take_picture
from tierd.kernel.tools import Tools
from tierd.service.conversion import MOST_STEPS, ConversionError, Converter
from tierd.service.convert import HELD_UP, reporter
from tierd.service.events import EventType, Priority
from tierd.service.one_shot import LOCK, Exit, Stopped, failure, lock, say, stoppable

DRAINED = EventType("drained", "79c5676c9a6ef7a826e8f718ead7729f", Priority.NOTICE)
DRAIN_FAILED = EventType("drain-failed", "0fb76aa12b0ac3dcdea702c7ef800e20", Priority.ERROR)
EVENT_TYPES = (DRAINED, DRAIN_FAILED)


def main(argv: Sequence[str] | None = None) -> int:
    """The program; its exit status. Raises nothing."""
    parser = argparse.ArgumentParser(
        prog="tierd-drain",
        description="Empty what of a region is memory, and take it out of the kernel.",
        epilog="exit status: 0 done, 1 failed, 2 usage, 69 refused, 75 held up by another, 77 not root",
    )
    parser.add_argument("iset_id", metavar="ISET_ID", help="the region's, as `tierctl drain` marked it")
    name = parser.parse_args(argv).iset_id
    try:
        return _run(name)
    except Stopped:
        return _fail(
            name, "stopped; what was being emptied is online again, and the region stays marked", Exit.FAILED
        )
    except Exception as error:
        return _fail(name, *failure(error))


def _fail(name: str, words: str, code: Exit) -> int:
    say(DRAIN_FAILED, f"{name}: {words}", {"TIERD_ISET_ID": name, "TIERD_REASON": words})
    return code


def _run(name: str) -> int:
    if os.geteuid() != 0:
        raise DeniedError("only root can take memory out of the kernel")
    root, tools = Root(), Tools()
    record = intents.Intents(intents.DEFAULT_PATH, root)
    mark = next((m for m in read_drained(record.path.parent) if f"{m.iset_id:#x}" == name), None)
    if mark is None:
        raise TierdError(f"{name} is not marked as drained", hint=f"tierctl drain {name}")
    with stoppable(), lock(LOCK) as descriptor:
        if descriptor is None:
            return _fail(name, HELD_UP, Exit.BUSY)
        tools = replace(tools, inherit=(descriptor,))
        report = reporter(descriptor, name)
        converter = Converter(root, tools, record, report, drain_deadline=mark.deadline)
        converter.recover()
        plan = empty(converter, mark)
    if plan.verdict is Verdict.REFUSED:
        return _fail(name, "; ".join(reason.words for reason in plan.refusals), Exit.REFUSED)
    picture = take_picture(root, tools, record.path)
    rest = hindrances(plan.region, users_of(root, plan.region.namespaces))
    dimms = [dimm.name for dimm in picture.dimms if plan.region.name in dimm.regions]
    words = f"nothing of {plan.region.name} is memory; " + (
        f"not safe to remove: {'; '.join(rest)}" if rest else f"safe to remove: {', '.join(dimms)}"
    )
    say(DRAINED, words, {"TIERD_ISET_ID": name, "TIERD_REGION": plan.region.name})
    return Exit.OK


def empty(converter: Converter, mark: Drained) -> DrainPlan:
    """Take the region's memory out of the kernel, one namespace after the other; the last plan, `done` or
    `refused`. Raises ConversionError when a step fails, GoneError without the region."""
    previous: object = None
    for _ in range(MOST_STEPS):
        inventory = converter.look()
        plan = plan_drain(inventory, find_region(inventory, mark.iset_id))
        if plan.verdict is not Verdict.READY:
            return plan
        part = plan.parts[0]
        step = part.steps[0]
        if (part.namespace, step) == previous:
            raise ConversionError(f"{part.request.name}: {step.action} had no effect; it is not tried again")
        converter.take(inventory, part, step)
        previous = (part.namespace, step)
    raise ConversionError(f"{mark.iset_id:#x}: not done after {MOST_STEPS} steps")


if __name__ == "__main__":
    sys.exit(main())
