"""tierd-convert NAME: carry out one request of the policy's `provision` list, once.

Run as root by tierd-convert@NAME.service, or by hand. Exit status: 0 the memory is there as asked (or the
request's mode is ``plan`` and the plan was printed), 1 a step failed, 2 usage, 69 refused with the reasons,
75 another request or drain holds the lock and gets no further, 77 not root, 78 the policy is bad or has no
such request.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import tierd.config
from tierd.config.allow import allowance
from tierd.core.any_plan import AnyPlan, any_plan_gist, any_plan_lines
from tierd.core.cxl import CxlPlan
from tierd.core.policy import AnyRequest, CxlRequest, NamespaceRequest, ProvisionMode
from tierd.core.provision import Verdict
from tierd.core.refusals import DRAINED
from tierd.errors import ConfigError, DeniedError, TierdError
from tierd.kernel import intents
from tierd.kernel.look import Look
from tierd.kernel.paths import Root
from tierd.kernel.tools import Tools
from tierd.service.cxl_conversion import CxlConverter
from tierd.service.draining import DRAIN_DEADLINE, DRAIN_SECONDS_PER_GIB
from tierd.service.events import EventType, Priority
from tierd.service.notify import Notifier
from tierd.service.one_shot import LOCK, LOCK_DEADLINE, Exit, Stopped, busy_for, lock, say, stoppable
from tierd.service.recovery import COMMAND_DEADLINE, Report
from tierd.service.taking import Taker

DEVICE_DEADLINE = 60.0
"""Seconds to wait for the device: early in the boot udev has not loaded its driver yet."""
LONGEST_PAUSE = 5.0
"""Seconds between two whole looks meanwhile."""
SETTLE_DEADLINE = 5.0
"""Seconds to wait once more with the lock, for what another conversion has only just finished."""
HELD_UP = (
    f"another request or drain holds {LOCK}, without progress for {LOCK_DEADLINE:g} s; nothing was changed:"
    f" `fuser {LOCK}` names who, wait until it has ended"
)
_TRANSIENT = frozenset(
    {
        *("region-not-found", "namespace-not-found", "dimm-not-found", "memdev-not-found"),
        *("not-settled", "no-device", "region-disabled", "no-window"),
    }
)
"""Refusals that time may cure while the machine boots."""

BEGUN = EventType("conversion-begun", "04f0bceeb4724e6593e56fb9d7d8cf84", Priority.NOTICE)
DRAINING = EventType("conversion-draining", "a6ac955db1f34c17861172ab1ae122e5", Priority.INFO)
STEP_DONE = EventType("conversion-step-done", "d41c3da5468c40a6be92d7e39b7525da", Priority.INFO)
DONE = EventType("conversion-done", "20ccc32a869d48cf8e938d215cf0e1bf", Priority.INFO)
PLANNED = EventType("conversion-planned", "00bfec606e8742268d89a60f6a1936f5", Priority.INFO)
REFUSED = EventType("conversion-refused", "5d44974f06cb41bb951bef58ac40ffad", Priority.ERROR)
FAILED = EventType("conversion-failed", "a50fb1fb60e04b25af203253c5d328b7", Priority.ERROR)
NOTED = EventType("conversion-noted", "b0288c6c2b004787bc91a5f2e7dab203", Priority.WARNING)
RESTORED = EventType("conversion-restored", "3012a893a1c54077bf278c06325b4c37", Priority.WARNING)
HELD = EventType("conversion-held", "897c19a71f0d640334b2f8645624c5da", Priority.NOTICE)
EVENT_TYPES = (BEGUN, DRAINING, STEP_DONE, DONE, PLANNED, REFUSED, FAILED, NOTED, RESTORED, HELD)

KINDS = {
    "begun": BEGUN,
    "draining": DRAINING,
    "step-done": STEP_DONE,
    "failed": FAILED,
    "restored": RESTORED,
}


def main(argv: Sequence[str] | None = None) -> int:
    """The program; its exit status. Raises nothing."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except ConfigError as error:
        problems = {"TIERD_PROBLEMS": "\n".join(error.problems)}
        _say(FAILED, arguments.name, "; ".join(error.problems[:3]), problems)
        return Exit.CONFIG
    except DeniedError as error:
        _say(FAILED, arguments.name, f"{arguments.name}: {error}")
        return Exit.DENIED
    except TierdError as error:
        hint = f" ({error.hint})" if error.hint else ""
        _say(FAILED, arguments.name, f"{error}{hint}")
        return Exit.FAILED
    except Stopped:
        _say(FAILED, arguments.name, f"{arguments.name}: stopped; the next run goes on from here")
        return Exit.FAILED
    except OSError as error:
        words = f"{arguments.name}: {error.filename or 'system'}: {error.strerror}"
        _say(FAILED, arguments.name, words)
        return Exit.FAILED
    except Exception as error:  # an operator gets a sentence, whatever went wrong
        words = f"{arguments.name}: internal error: {type(error).__name__}: {error}"
        _say(FAILED, arguments.name, words)
        return Exit.FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tierd-convert",
        description="Make what a request of tierd's policy asks for memory, and what is too much of it free"
        " capacity again.",
        epilog="exit status: 0 as asked, 1 failed, 2 usage, 69 refused, 75 held up by another,"
        " 77 not root, 78 bad policy",
    )
    parser.add_argument("name", metavar="NAME", help="the request's name in the policy's `provision` list")
    parser.add_argument(
        "--policy", type=Path, metavar="FILE", help="that file alone (default: the policy in force)"
    )
    parser.add_argument("--plan", action="store_true", help="only print what would be done")
    parser.add_argument(
        "--drain",
        type=float,
        metavar="SECONDS",
        help="for emptying the memory of one namespace that is given back (default:"
        f" {DRAIN_SECONDS_PER_GIB:g} for each GiB, at least {DRAIN_DEADLINE:g})",
    )
    parser.add_argument(
        "--wait", type=float, default=DEVICE_DEADLINE, metavar="SECONDS", help="for the device (%(default)g)"
    )
    return parser


def _run(arguments: argparse.Namespace) -> int:
    policy = tierd.config.load(arguments.policy)
    request = next((r for r in policy.requests if r.name == arguments.name), None)
    if request is None:
        known = ", ".join(r.name for r in policy.requests) or "none"
        raise ConfigError(
            (f"{policy.source}: no provision request is named {arguments.name}; there is {known}",)
        )
    if os.geteuid() != 0:
        raise DeniedError("only root can look at and convert persistent memory")
    root, tools = Root(), Tools()
    record = intents.Intents(intents.DEFAULT_PATH, root)
    beside = str(arguments.policy or tierd.config.DEFAULT_PATH)
    if arguments.plan or request.mode is ProvisionMode.PLAN:
        plan = _wait(root, tools, record, request, beside, arguments.wait)
        print("\n".join(any_plan_lines(plan, str(root.sys))))
        words = f"{request.name}: {plan.verdict} ({any_plan_gist(plan)}); the mode is plan, nothing is run"
        _say(PLANNED, request.name, words)
        return Exit.OK
    with stoppable():
        # before the lock: a device that does not come must not keep the others from theirs
        seen = _wait(root, tools, record, request, beside, arguments.wait)
        seconds = 0.0 if _may_come(seen) else SETTLE_DEADLINE
        return _carry_out(root, tools, record, request, beside, arguments.drain, seconds)


def _carry_out(
    root: Root,
    tools: Tools,
    record: intents.Intents,
    request: AnyRequest,
    beside: str,
    drain: float | None,
    wait: float,
) -> int:
    """Do it, under the lock. drain, wait: seconds, for emptying memory, and for the device. beside:
    the file beside which consent is. The exit status."""
    with lock(LOCK) as descriptor:
        if descriptor is None:
            unit = f"tierd-convert@{request.name}"
            _say(FAILED, request.name, f"{request.name}: {HELD_UP}; then `systemctl restart {unit}`")
            return Exit.BUSY
        tools = replace(tools, inherit=(descriptor,))
        report = reporter(descriptor, request.name)
        converter = CxlConverter(root, tools, record, report, drain_deadline=drain)
        converter.recover()
        _wait(root, tools, record, request, beside, wait)
        plan: AnyPlan
        if isinstance(request, NamespaceRequest):
            plan = Taker(converter, beside).run(request)
        elif isinstance(request, CxlRequest):
            plan = converter.run_cxl(request)
        else:
            plan = converter.run(request)
    fields, gist = _fields(plan), any_plan_gist(plan)
    for note in plan.notes:
        _say(NOTED, request.name, f"{request.name}: {note}", fields)
    if plan.verdict is Verdict.REFUSED:
        if {refusal.kind for refusal in plan.refusals} == {DRAINED}:
            _say(HELD, request.name, f"{request.name}: {gist}", fields)
            return Exit.OK
        kinds = "\n".join(refusal.kind for refusal in plan.refusals)
        refusals = {**fields, "TIERD_REFUSALS": kinds}
        _say(REFUSED, request.name, f"{request.name}: refused: {gist}", refusals)
        return Exit.REFUSED
    _say(DONE, request.name, f"{request.name}: {gist}", fields)
    return Exit.OK


def reporter(descriptor: int, name: str) -> Report:
    """What a converter tells it goes into the journal and the unit's status, and tells those who wait for
    the lock `descriptor` that there is progress. name: what it is about."""
    notifier = Notifier()

    def report(kind: str, words: str, fields: Mapping[str, str]) -> None:
        busy_for(descriptor, float(fields.get("TIERD_DEADLINE", COMMAND_DEADLINE)))
        notifier.status(words)
        _say(KINDS[kind], name, words, fields)

    return report


def _say(kind: EventType, request: str, words: str, fields: Mapping[str, str] | None = None) -> None:
    say(kind, words, {**(fields or {}), "TIERD_REQUEST": request})


def _fields(plan: AnyPlan) -> dict[str, str]:
    if isinstance(plan, CxlPlan):
        return {"TIERD_REGION": "" if plan.region is None else plan.region.name, "TIERD_UUID": ""}
    uuids = (part.namespace.uuid or "" for part in plan.kept if part.namespace is not None)
    return {"TIERD_REGION": plan.region or "", "TIERD_UUID": "\n".join(uuids)}


def _pause(root: Root, seconds: float) -> None:
    """Until another device has appeared or gone, or for so long: to ask ndctl costs a hundred times as much
    as to look, while the machine boots."""

    def names() -> set[str]:
        return {path.name for bus in (root.nd_devices, root.cxl_devices) for path in bus.glob("*")}

    before, until = names(), time.monotonic() + seconds
    while names() == before and (left := until - time.monotonic()) > 0:
        time.sleep(min(0.5, left))


def _may_come(plan: AnyPlan) -> bool:
    return any(refusal.kind in _TRANSIENT for refusal in plan.refusals)


def _wait(
    root: Root, tools: Tools, record: intents.Intents, request: AnyRequest, beside: str, seconds: float
) -> AnyPlan:
    """The first plan that time will not change, or the last one before the deadline. Runs nothing."""
    until = time.monotonic() + seconds
    settled = False
    while True:
        plan = Look(root, tools, record).plan(request, partial(allowance, beside))
        left = until - time.monotonic()
        parts = () if isinstance(plan, CxlPlan) else plan.parts
        devices = [part.namespace.dax for part in parts if part.namespace is not None]
        # a device without a driver may be udev's to bind, or what a killed daxctl left: udev is asked once
        unbound = any(dax is not None and not dax.driver for dax in devices)
        if left <= 0 or not (_may_come(plan) or (unbound and not settled)):
            return plan
        if settled:
            _pause(root, min(LONGEST_PAUSE, left))
            continue
        settled = True
        with contextlib.suppress(TierdError):  # without udev, polling is all there is
            tools.run(("udevadm", "settle", f"--timeout={max(1, int(left))}"), deadline=left + 5)


if __name__ == "__main__":
    sys.exit(main())
