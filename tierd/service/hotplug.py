"""tierd-hotplug DEVICE: a region of persistent memory, or a memory device on CXL, has appeared; what the
policy says of it.

Started by udev through tierd-hotplug@DEVICE.service, at boot and when a module is plugged in, so that the
daemon, which may do nothing of the kind, need not even run. A request that is enabled is carried out by its
own unit, tierd-convert@NAME; everything else is said in the journal, in one line. Changes nothing itself.

udev's rule and a unit need no library, and nobody who listens all the time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import time
from collections.abc import Sequence

import tierd.config
from tierd.core.cxl import CxlPlan, plan_cxl
from tierd.core.cxl_machine import CxlMachine, CxlMemdev
from tierd.core.evidence import regions_asked
from tierd.core.inventory import Inventory, Region
from tierd.core.picture import of_memdev, of_region
from tierd.core.policy import AnyRequest, NamespaceRequest, Policy, ProvisionMode, ProvisionRequest
from tierd.core.provision import Verdict
from tierd.core.refusals import Refusal
from tierd.core.share_plan import SharePlan
from tierd.core.shares import plan_share
from tierd.core.units import format_size
from tierd.errors import ConfigError, DeniedError, TierdError
from tierd.kernel import intents
from tierd.kernel.cxl import take_cxl
from tierd.kernel.inventory import take_inventory
from tierd.kernel.paths import Root
from tierd.kernel.tools import Tools
from tierd.service.events import EventType, Priority
from tierd.service.one_shot import Exit, failure, say

Request = ProvisionRequest | NamespaceRequest

SETTLE_DEADLINE = 30.0
"""Seconds for udev and the kernel to have found out what is in the region, or the way to the device."""

APPEARED = EventType("device-appeared", "d9cc2e323d4688ab971322aa8ed4f97b", Priority.NOTICE)
UNREAD = EventType("device-not-read", "be45c7818f4caf3289281ff361af73ec", Priority.ERROR)
CXL_APPEARED = EventType("cxl-device-appeared", "91a93ded7c4e4ab29e0df01f57401218", Priority.NOTICE)
EVENT_TYPES = (APPEARED, UNREAD, CXL_APPEARED)

_MEMDEV = re.compile(r"mem[0-9]+")
_UNSETTLED = frozenset({"not-settled", "no-device", "region-disabled"})


def main(argv: Sequence[str] | None = None) -> int:
    """The program; its exit status. Raises nothing."""
    parser = argparse.ArgumentParser(
        prog="tierd-hotplug",
        description="Have a region of persistent memory, or a memory device on CXL, that has appeared taken"
        " up if the policy says so, and report it.",
        epilog="exit status: 0 done, 1 failed, 2 usage, 77 not root, 78 the policy is bad",
    )
    parser.add_argument("device", metavar="DEVICE", help="as in `ndctl list -R` or `cxl list -M`")
    device = parser.parse_args(argv).device
    try:
        return _run(device)
    except ConfigError as error:
        return _fail(device, f"the policy cannot be used: {error.problems[0]}", Exit.CONFIG)
    except Exception as error:
        return _fail(device, *failure(error))


def _fail(device: str, words: str, code: Exit) -> int:
    say(UNREAD, f"{device} has appeared: {words}", {"TIERD_DEVICE": device, "TIERD_REASON": words})
    return code


def _run(name: str) -> int:
    if os.geteuid() != 0:
        raise DeniedError("only root sees where such memory lies")
    root, tools = Root(), Tools()
    record = intents.Intents(intents.DEFAULT_PATH, root)
    until = time.monotonic() + SETTLE_DEADLINE
    with contextlib.suppress(TierdError):  # without udev, polling is all there is
        tools.run(("udevadm", "settle", f"--timeout={int(SETTLE_DEADLINE)}"), deadline=SETTLE_DEADLINE + 5)
    if _MEMDEV.fullmatch(name):
        seen = _look_cxl(root, tools, record, name, until)
        if seen is not None:
            _of_memdev(tools, tierd.config.load(None), *seen)
        return Exit.OK
    found = _look(root, tools, record, name, until)
    if found is not None:  # else it has gone again
        _of_region(tools, tierd.config.load(None), *found)
    return Exit.OK


def _of_region(tools: Tools, policy: Policy, inventory: Inventory, region: Region) -> None:
    """Follow the requests that concern the region, and report it."""
    name = region.name
    asked: tuple[Request, ...] = (*policy.provision, *policy.namespaces)
    requests = [r for r in asked if _concerns(r, inventory, region)]
    if requests:
        said = [_follow(tools, request, _plan(inventory, request)) for request in requests]
    else:
        said = [_unclaimed(of_region(inventory, region).reasons, f'iset_id: "{region.iset_id or 0:#x}"')]
    whole = 0 if region.span is None else region.span.size
    words = f"{name}: {format_size(whole)} of persistent memory, {format_size(region.available)} free"
    fields = {
        "TIERD_REGION": name,
        "TIERD_ISET_ID": "" if region.iset_id is None else f"{region.iset_id:#x}",
        "TIERD_REQUESTS": "\n".join(request.name for request in requests),
    }
    say(APPEARED, f"{words}; {'; '.join(said)}", fields)


def _of_memdev(tools: Tools, policy: Policy, machine: CxlMachine, memdev: CxlMemdev) -> None:
    """The same for a memory device on CXL."""
    name = memdev.name
    requests = [request for request in policy.cxl if memdev.serial in request.serials]
    if requests:
        said = [_follow(tools, request, plan_cxl(machine, request)) for request in requests]
    else:
        prospect = of_memdev(machine, memdev)
        reasons = () if prospect is None else prospect.reasons
        said = [_unclaimed(reasons, f'serial: "{memdev.serial or 0:#x}"')]
    words = f"{name}: {format_size(memdev.volatile)} of volatile CXL memory, {format_size(memdev.free)} free"
    fields = {
        "TIERD_DEVICE": name,
        "TIERD_SERIAL": "" if memdev.serial is None else f"{memdev.serial:#x}",
        "TIERD_REQUESTS": "\n".join(request.name for request in requests),
    }
    say(CXL_APPEARED, f"{words}; {'; '.join(said)}", fields)


def _look(
    root: Root, tools: Tools, record: intents.Intents, name: str, until: float
) -> tuple[Inventory, Region] | None:
    """The region, once it is known what is in it, or as far as that is known in time; None when it has
    gone. until: of the monotonic clock."""
    while True:
        inventory = take_inventory(root, tools, record)
        region = next((region for region in inventory.regions if region.name == name), None)
        if region is not None:
            kinds = {reason.kind for reason in of_region(inventory, region).reasons}
            if not kinds & _UNSETTLED:
                return inventory, region
        if time.monotonic() > until:
            return None if region is None else (inventory, region)
        time.sleep(1.0)


def _look_cxl(
    root: Root, tools: Tools, record: intents.Intents, name: str, until: float
) -> tuple[CxlMachine, CxlMemdev] | None:
    """The device, once the kernel has found the way to it and enabled the regions that it is in, or as far
    as it has in time; None when it has gone."""
    while True:
        machine = take_cxl(root, tools, record)
        memdev = next((memdev for memdev in machine.memdevs if memdev.name == name), None)
        if memdev is not None and memdev.settled:
            if all(region.enabled for region in machine.regions if name in region.memdevs):
                return machine, memdev
        if time.monotonic() > until:
            return None if memdev is None else (machine, memdev)
        time.sleep(1.0)


def _unclaimed(reasons: Sequence[Refusal], identity: str) -> str:
    """No request names the device."""
    if reasons:
        return f"tierd would not use it: {'; '.join(reason.words for reason in reasons)}"
    return f"no request of the policy names it ({identity})"


def _concerns(request: Request, inventory: Inventory, region: Region) -> bool:
    """Whether the request asks for the region, for a namespace of it, or for one that tierd took there."""
    if region.iset_id in regions_asked(inventory, request):
        return True
    # without labels a region has no iset_id
    return isinstance(request, NamespaceRequest) and request.identity in (
        *region.serials,
        *(namespace.uuid for namespace in region.namespaces),
    )


def _plan(inventory: Inventory, request: Request) -> SharePlan | None:
    """None for a namespace: what it holds, and who uses it, is for the unit to find out."""
    return plan_share(inventory, request) if isinstance(request, ProvisionRequest) else None


def _follow(tools: Tools, request: AnyRequest, plan: SharePlan | CxlPlan | None) -> str:
    """Have a request that is enabled carried out; what is done about it, in words."""
    unit = f"tierd-convert@{request.name}.service"
    if plan and plan.verdict is Verdict.DONE:
        return f"request {request.name} has what it asks for"
    if plan and plan.verdict is Verdict.REFUSED:
        return f"request {request.name} is refused: {'; '.join(r.words for r in plan.refusals)}"
    if request.mode is ProvisionMode.PLAN:
        return f"request {request.name} would use it, and says `mode: plan`"
    if tools.run(("systemctl", "is-enabled", "--quiet", unit)).code:
        return f"request {request.name} would use it: `systemctl enable --now {unit}` lets it"
    state = (
        tools.run(("systemctl", "show", "-P", "ActiveState", unit)).stdout.decode(errors="replace").strip()
    )
    if state not in ("activating", "reloading"):  # else it waits for this very region, or is at it
        started = tools.run(("systemctl", "reload-or-restart", "--no-block", unit))
        if started.code:
            return f"request {request.name} cannot be started: {started.stderr}"
    return f"request {request.name} takes it up"


if __name__ == "__main__":
    sys.exit(main())
