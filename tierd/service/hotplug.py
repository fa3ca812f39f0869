"""tierd-hotplug REGION: a region of persistent memory has appeared; what the policy says of it.

Started by udev through tierd-hotplug@REGION.service, at boot and when a module is plugged in, so that the
daemon, which may do nothing of the kind, need not even run. A request that is enabled is carried out by its
own unit, tierd-convert@NAME; everything else is said in the journal, in one line. Changes nothing itself.

udev's rule and a unit need no library, and nobody who listens all the time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Sequence

import tierd.config
from tierd.core.evidence import regions_asked
from tierd.core.inventory import Inventory, Region
from tierd.core.picture import of_region
from tierd.core.policy import NamespaceRequest, ProvisionMode, ProvisionRequest
from tierd.core.provision import Verdict
from tierd.core.shares import plan_share
from tierd.core.units import format_size
from tierd.errors import ConfigError, DeniedError, TierdError
from tierd.kernel import intents
from tierd.kernel.inventory import take_inventory
from tierd.kernel.paths import Root
from tierd.kernel.tools import Tools
from tierd.service.events import EventType, Priority
from tierd.service.one_shot import Exit, failure, say

Request = ProvisionRequest | NamespaceRequest

SETTLE_DEADLINE = 30.0
"""Seconds for udev and the kernel to have found out what is in the region."""

APPEARED = EventType("device-appeared", "d9cc2e323d4688ab971322aa8ed4f97b", Priority.NOTICE)
UNREAD = EventType("device-not-read", "be45c7818f4caf3289281ff361af73ec", Priority.ERROR)
EVENT_TYPES = (APPEARED, UNREAD)

_UNSETTLED = frozenset({"not-settled", "no-device", "region-disabled"})


def main(argv: Sequence[str] | None = None) -> int:
    """The program; its exit status. Raises nothing."""
    parser = argparse.ArgumentParser(
        prog="tierd-hotplug",
        description="Have a region that has appeared taken up if the policy says so, and report it.",
        epilog="exit status: 0 done, 1 failed, 2 usage, 77 not root, 78 the policy is bad",
    )
    parser.add_argument("region", metavar="REGION", help="as in `ndctl list -R`")
    region = parser.parse_args(argv).region
    try:
        return _run(region)
    except ConfigError as error:
        return _fail(region, f"the policy cannot be used: {error.problems[0]}", Exit.CONFIG)
    except Exception as error:
        return _fail(region, *failure(error))


def _fail(region: str, words: str, code: Exit) -> int:
    say(UNREAD, f"{region} has appeared: {words}", region, {"TIERD_REGION": region, "TIERD_REASON": words})
    return code


def _run(name: str) -> int:
    if os.geteuid() != 0:
        raise DeniedError("only root sees where persistent memory lies")
    root, tools = Root(), Tools()
    found = _look(root, tools, name)
    if found is None:
        return Exit.OK  # gone again
    inventory, region = found
    policy = tierd.config.load(tierd.config.DEFAULT_PATH)
    asked: tuple[Request, ...] = (*policy.provision, *policy.namespaces)
    requests = [r for r in asked if _concerns(r, inventory, region)]
    if requests:
        said = [_follow(tools, inventory, request) for request in requests]
    else:
        said = [_unclaimed(inventory, region)]
    whole = 0 if region.span is None else region.span.size
    words = f"{name}: {format_size(whole)} of persistent memory, {format_size(region.available)} free"
    fields = {
        "TIERD_REGION": name,
        "TIERD_ISET_ID": "" if region.iset_id is None else f"{region.iset_id:#x}",
        "TIERD_REQUESTS": "\n".join(request.name for request in requests),
    }
    say(APPEARED, f"{words}; {'; '.join(said)}", name, fields)
    return Exit.OK


def _look(root: Root, tools: Tools, name: str) -> tuple[Inventory, Region] | None:
    """The region, once it is known what is in it, or as far as that is known in time; None when it has
    gone."""
    until = time.monotonic() + SETTLE_DEADLINE
    with contextlib.suppress(TierdError):  # without udev, polling is all there is
        tools.run(("udevadm", "settle", f"--timeout={int(SETTLE_DEADLINE)}"), deadline=SETTLE_DEADLINE + 5)
    while True:
        inventory = take_inventory(root, tools, intents.Intents(intents.DEFAULT_PATH, root))
        region = next((region for region in inventory.regions if region.name == name), None)
        if region is not None:
            kinds = {reason.kind for reason in of_region(inventory, region).reasons}
            if not kinds & _UNSETTLED:
                return inventory, region
        if time.monotonic() > until:
            return None if region is None else (inventory, region)
        time.sleep(1.0)


def _unclaimed(inventory: Inventory, region: Region) -> str:
    """No request names the region."""
    reasons = of_region(inventory, region).reasons
    if reasons:
        return f"tierd would not use it: {'; '.join(reason.words for reason in reasons)}"
    return f'no request of the policy names it (iset_id: "{region.iset_id:#x}")'


def _concerns(request: Request, inventory: Inventory, region: Region) -> bool:
    """Whether the request asks for the region, for a namespace of it, or for one that tierd took there."""
    if region.iset_id in regions_asked(inventory, request):
        return True
    # without labels a region has no iset_id
    return isinstance(request, NamespaceRequest) and request.identity in (
        *region.serials,
        *(namespace.uuid for namespace in region.namespaces),
    )


def _follow(tools: Tools, inventory: Inventory, request: Request) -> str:
    """Have a request that is enabled carried out; what is done about it, in words. What a namespace holds,
    and who uses it, is for the unit to find out."""
    plan = plan_share(inventory, request) if isinstance(request, ProvisionRequest) else None
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
