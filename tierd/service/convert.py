"""tierd-convert NAME: carry out one request of the policy's `provision` list, once.

Run as root by tierd-convert@NAME.service, or by hand. Exit status: 0 the memory is there as asked (or the
request's mode is ``plan`` and the plan was printed), 1 a step failed, 2 usage, 69 refused with the reasons,
75 another conversion is running, 77 not root, 78 the policy is bad or has no such request.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from types import FrameType

import tierd.config
from tierd.core.cxl import CxlPlan, plan_cxl
from tierd.core.cxl_text import cxl_gist, cxl_lines
from tierd.core.policy import CxlRequest, ProvisionMode, ProvisionRequest
from tierd.core.provision import Verdict
from tierd.core.provision_text import plan_lines
from tierd.core.share_plan import SharePlan
from tierd.core.shares import plan_share
from tierd.errors import ConfigError, DeniedError, TierdError
from tierd.kernel import intents
from tierd.kernel.cxl import take_cxl
from tierd.kernel.inventory import take_inventory
from tierd.kernel.paths import Root
from tierd.kernel.tools import Tools
from tierd.service.conversion import Converter
from tierd.service.cxl_conversion import CxlConverter
from tierd.service.draining import DRAIN_DEADLINE, DRAIN_SECONDS_PER_GIB
from tierd.service.events import Event, EventType, Priority
from tierd.service.journal import default_sink, to_stderr
from tierd.service.notify import Notifier

LOCK = Path("/run/tierd/convert.lock")
DEVICE_DEADLINE = 60.0
"""Seconds to wait for the region: early in the boot udev has not loaded its driver yet."""
LOCK_DEADLINE = 120.0

_TRANSIENT = frozenset(
    {"region-not-found", "not-settled", "no-device", "region-disabled", "memdev-not-found", "no-window"}
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
EVENT_TYPES = (BEGUN, DRAINING, STEP_DONE, DONE, PLANNED, REFUSED, FAILED, NOTED, RESTORED)

_KINDS = {
    "begun": BEGUN,
    "draining": DRAINING,
    "step-done": STEP_DONE,
    "failed": FAILED,
    "restored": RESTORED,
}


class Exit(IntEnum):
    """Exit status, after sysexits(3)."""

    OK = 0
    FAILED = 1
    REFUSED = 69
    BUSY = 75
    DENIED = 77
    CONFIG = 78


class Stopped(BaseException):
    """SIGTERM or SIGINT came. Not an Exception, so that nothing between here and main takes it for a
    failure."""


def main(argv: Sequence[str] | None = None) -> int:
    """The program; its exit status. Raises nothing."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except ConfigError as error:
        _say(
            FAILED,
            "; ".join(error.problems[:3]),
            arguments.name,
            {"TIERD_PROBLEMS": "\n".join(error.problems)},
        )
        return Exit.CONFIG
    except DeniedError as error:
        _say(FAILED, f"{arguments.name}: {error}", arguments.name, {})
        return Exit.DENIED
    except TierdError as error:
        hint = f" ({error.hint})" if error.hint else ""
        _say(FAILED, f"{error}{hint}", arguments.name, {})
        return Exit.FAILED
    except Stopped:
        _say(FAILED, f"{arguments.name}: stopped; the next run goes on from here", arguments.name, {})
        return Exit.FAILED
    except OSError as error:
        _say(FAILED, f"{arguments.name}: {error.filename or 'system'}: {error.strerror}", arguments.name, {})
        return Exit.FAILED
    except Exception as error:  # an operator gets a sentence, whatever went wrong
        _say(
            FAILED, f"{arguments.name}: internal error: {type(error).__name__}: {error}", arguments.name, {}
        )
        return Exit.FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tierd-convert",
        description="Make the share of a region that a request of tierd's policy asks for memory, and what"
        " is too much of it free capacity again.",
        epilog="exit status: 0 as asked, 1 failed, 2 usage, 69 refused, 75 another conversion is running,"
        " 77 not root, 78 bad policy",
    )
    parser.add_argument("name", metavar="NAME", help="the request's name in the policy's `provision` list")
    parser.add_argument(
        "--policy", type=Path, default=tierd.config.DEFAULT_PATH, metavar="FILE", help="default: %(default)s"
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
            (f"{arguments.policy}: no provision request is named {arguments.name}; there is {known}",)
        )
    if os.geteuid() != 0:
        raise DeniedError("only root can look at and convert persistent memory")
    root, tools = Root(), Tools()
    record = intents.Intents(intents.DEFAULT_PATH, root)
    if isinstance(request, CxlRequest):
        return _run_cxl(arguments, root, tools, record, request)
    if arguments.plan or request.mode is ProvisionMode.PLAN:
        plan = _wait(root, tools, record, request, arguments.wait)
        print("\n".join(plan_lines(plan, str(root.sys))))
        _say(
            PLANNED,
            f"{request.name}: {plan.verdict} ({_gist(plan)}); the mode is plan, nothing is run",
            request.name,
            {},
        )
        return Exit.OK
    with _stoppable(), _lock(LOCK) as descriptor:
        if descriptor is None:
            _say(FAILED, f"{request.name}: another conversion is running", request.name, {})
            return Exit.BUSY
        tools = replace(tools, inherit=(descriptor,))

        notifier = Notifier()

        def report(kind: str, words: str, fields: Mapping[str, str]) -> None:
            notifier.status(words)
            _say(_KINDS[kind], words, request.name, fields)

        converter = Converter(root, tools, record, report, drain_deadline=arguments.drain)
        converter.recover()
        _wait(root, tools, record, request, arguments.wait)
        plan = converter.run(request)
    fields = {
        "TIERD_REGION": plan.region or "",
        "TIERD_UUID": "\n".join(
            part.namespace.uuid or "" for part in plan.kept if part.namespace is not None
        ),
    }
    for note in plan.notes:
        _say(NOTED, f"{request.name}: {note}", request.name, fields)
    if plan.verdict is Verdict.REFUSED:
        kinds = "\n".join(refusal.kind for refusal in plan.refusals)
        _say(
            REFUSED,
            f"{request.name}: refused: {_gist(plan)}",
            request.name,
            {**fields, "TIERD_REFUSALS": kinds},
        )
        return Exit.REFUSED
    _say(DONE, f"{request.name}: {_gist(plan)}", request.name, fields)
    return Exit.OK


def _run_cxl(
    arguments: argparse.Namespace, root: Root, tools: Tools, record: intents.Intents, request: CxlRequest
) -> int:
    if arguments.plan or request.mode is ProvisionMode.PLAN:
        plan = _wait_cxl(root, tools, record, request, arguments.wait)
        print("\n".join(cxl_lines(plan, str(root.sys))))
        words = f"{request.name}: {plan.verdict} ({cxl_gist(plan)}); the mode is plan, nothing is run"
        _say(PLANNED, words, request.name, {})
        return Exit.OK
    with _stoppable(), _lock(LOCK) as descriptor:
        if descriptor is None:
            _say(FAILED, f"{request.name}: another conversion is running", request.name, {})
            return Exit.BUSY
        notifier = Notifier()

        def report(kind: str, words: str, fields: Mapping[str, str]) -> None:
            notifier.status(words)
            _say(_KINDS[kind], words, request.name, fields)

        tools = replace(tools, inherit=(descriptor,))
        converter = CxlConverter(root, tools, record, report, drain_deadline=arguments.drain)
        converter.recover()
        _wait_cxl(root, tools, record, request, arguments.wait)
        plan = converter.run_cxl(request)
    for note in plan.notes:
        _say(NOTED, f"{request.name}: {note}", request.name, {})
    if plan.verdict is Verdict.REFUSED:
        kinds = "\n".join(refusal.kind for refusal in plan.refusals)
        _say(REFUSED, f"{request.name}: refused: {cxl_gist(plan)}", request.name, {"TIERD_REFUSALS": kinds})
        return Exit.REFUSED
    region = "" if plan.region is None else plan.region.name
    _say(DONE, f"{request.name}: {cxl_gist(plan)}", request.name, {"TIERD_REGION": region, "TIERD_UUID": ""})
    return Exit.OK


def _wait_cxl(
    root: Root, tools: Tools, record: intents.Intents, request: CxlRequest, seconds: float
) -> CxlPlan:
    """The first plan in which every device is there, or the last one before the deadline. Runs nothing."""
    until = time.monotonic() + seconds
    settled = False
    while True:
        plan = plan_cxl(take_cxl(root, tools, record), request)
        left = until - time.monotonic()
        if left <= 0 or all(refusal.kind not in _TRANSIENT for refusal in plan.refusals):
            return plan
        if not settled:
            settled = True
            with contextlib.suppress(TierdError):  # without udev, polling is all there is
                tools.run(("udevadm", "settle", f"--timeout={max(1, int(left))}"), deadline=left + 5)
            continue
        time.sleep(min(1.0, left))


def _gist(plan: SharePlan) -> str:
    if plan.refusals:
        return "; ".join(refusal.words for refusal in plan.refusals)
    assert plan.numbers is not None
    if not plan.numbers.memory:
        return "nothing is memory" if plan.verdict is Verdict.DONE else "all of it to be given back"
    node = "" if plan.target_node is None else f" on node {plan.target_node}"
    size = f"{plan.numbers.memory >> 20} MiB{node}, {plan.numbers.blocks} blocks in ZONE_MOVABLE"
    return f"{size} are online" if plan.verdict is Verdict.DONE else f"{size} to come"


def _wait(
    root: Root, tools: Tools, record: intents.Intents, request: ProvisionRequest, seconds: float
) -> SharePlan:
    """The first plan that time will not change, or the last one before the deadline. Runs nothing."""
    until = time.monotonic() + seconds
    settled = False
    while True:
        plan = plan_share(take_inventory(root, tools, record), request)
        left = until - time.monotonic()
        absent = any(refusal.kind in _TRANSIENT for refusal in plan.refusals)
        devices = [part.namespace.dax for part in plan.parts if part.namespace is not None]
        # a device without a driver may be udev's to bind, or what a killed daxctl left: udev is asked once
        unbound = any(dax is not None and not dax.driver for dax in devices)
        if left <= 0 or not (absent or (unbound and not settled)):
            return plan
        if settled:
            time.sleep(min(1.0, left))
            continue
        settled = True
        with contextlib.suppress(TierdError):  # without udev, polling is all there is
            tools.run(("udevadm", "settle", f"--timeout={max(1, int(left))}"), deadline=left + 5)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[int | None]:
    """The lock on all conversions, as a descriptor for the tools to inherit; None when it is not to be had
    in time."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        until = time.monotonic() + LOCK_DEADLINE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    yield None
                    return
                time.sleep(0.2)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        # once is enough: what is put back on the way out must not be stopped
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise Stopped

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(kind: EventType, words: str, request: str, fields: Mapping[str, str]) -> None:
    event = Event(kind, words, request, {**fields, "TIERD_REQUEST": request})
    try:
        default_sink()(event)
    except ImportError:  # no systemd-python
        to_stderr(event)


if __name__ == "__main__":
    sys.exit(main())
