"""`tierctl provision`: what tierd would do with persistent memory, straight from the machine.

Offline commands: they read the policy and the machine themselves and change nothing. Only tierd-convert@
acts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from functools import partial

from tierd.cli import Exit
from tierd.cli.arguments import add_draft, add_json
from tierd.cli.terminal import folded
from tierd.config import DEFAULT_PATH as POLICY_PATH
from tierd.config import load_chosen
from tierd.config.allow import allowance
from tierd.core.any_plan import AnyPlan, any_plan_document, any_plan_lines
from tierd.core.inventory import Inventory, Namespace, Region
from tierd.core.picture import of_region
from tierd.core.policy import AnyRequest, Policy, ProvisionMode
from tierd.core.provision import Verdict
from tierd.core.text import clean, size
from tierd.errors import DeniedError, GoneError
from tierd.kernel.intents import DEFAULT_PATH, Intents
from tierd.kernel.look import Look
from tierd.kernel.paths import Root
from tierd.kernel.tools import Tools

_NEXT = {
    (
        Verdict.READY,
        ProvisionMode.APPLY,
    ): "`tierctl provision apply {name}` does this now, `systemctl enable --now tierd-convert@{name}` now"
    " and at each boot",
    (Verdict.READY, ProvisionMode.PLAN): "nothing is run while the policy says `mode: plan`",
    (
        Verdict.DONE,
        ProvisionMode.APPLY,
    ): "`systemctl enable tierd-convert@{name}` brings it back at each boot",
}


# The subparsers object is generic over a private class of argparse.
def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``provision`` and its commands; each sets `handler`, which takes the arguments and returns an exit
    status."""
    group = subparsers.add_parser(
        "provision",
        help="persistent memory: what there is, and what becomes memory",
        description="Show what tierd would make of persistent memory, and change how much that is.",
    )
    commands = group.add_subparsers(dest="provision_command", metavar="COMMAND", required=True)
    plan = commands.add_parser(
        "plan",
        help="what the policy's requests would do, in words and numbers",
        description="For each request of the policy: bytes gained and lost, DRAM spent, the steps.",
        epilog="Exit status: 0 done or ready, 1 one is refused, 4 not root, 5 no such request, 78 policy",
    )
    plan.add_argument("name", nargs="?", metavar="NAME", help="one request (default: all)")
    add_draft(plan, "--policy")
    add_json(plan)
    plan.set_defaults(handler=_plan)
    from tierd.cli import provision_apply, provision_set

    provision_apply.add_parser(commands)
    provision_set.add_parser(commands)
    listing = commands.add_parser(
        "list",
        help="regions, what is free in them, and their namespaces",
        description="Show the regions of persistent memory, each with its iset_id and its namespaces.",
    )
    add_json(listing)
    listing.set_defaults(handler=_list)


def require_root() -> None:
    """Raises NotRootError for everybody else."""
    if os.geteuid() != 0:
        raise NotRootError("only root sees where persistent memory lies", hint="run it with sudo")


def look(root: Root) -> Look:
    """What there is. Raises NotRootError; what it is asked raises what it says."""
    require_root()
    return Look(root, Tools(), Intents(DEFAULT_PATH, root))


class NotRootError(DeniedError):
    """The command needs root."""

    status = Exit.NOT_AUTHORISED


class NoRequestError(GoneError):
    """The policy has no request of that name."""

    status = Exit.NO_SUCH_OBJECT


def _plan(arguments: argparse.Namespace) -> int:
    root = Root()
    policy = load_chosen(arguments.policy)
    requests = policy.requests if arguments.name is None else (request_named(policy, arguments.name),)
    if not requests:
        return _nothing_asked(policy, as_json=arguments.json)
    # also for a draft: what counts once it is in force
    found, allow = look(root), partial(allowance, str(POLICY_PATH))
    plans = [found.plan(request, allow) for request in requests]
    if arguments.json:
        documents = [any_plan_document(plan, str(root.sys)) for plan in plans]
        print(json.dumps({"requests": documents}, indent=2))
    else:
        print(folded("\n\n".join(plan_text(plan, root) for plan in plans), sys.stdout))
    return Exit.FAILED if any(plan.verdict is Verdict.REFUSED for plan in plans) else Exit.OK


def request_named(policy: Policy, name: str) -> AnyRequest:
    """Raises NoRequestError when the policy has none of that name."""
    found = next((request for request in policy.requests if request.name == name), None)
    if found is None:
        known = ", ".join(request.name for request in policy.requests) or "none"
        raise NoRequestError(f"{policy.source} has no request named {name}; there is {known}")
    return found


def _nothing_asked(policy: Policy, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"requests": []}, indent=2))
    else:
        print(f"{policy.source} asks for no memory: its `provision` list is empty")
    return Exit.OK


def plan_text(plan: AnyPlan, root: Root) -> str:
    """The plan, and what an operator would do next."""
    lines = [clean(line, None) for line in any_plan_lines(plan, str(root.sys))]
    following = _NEXT.get((plan.verdict, plan.request.mode))
    return "\n".join([*lines, "  " + following.format(name=plan.request.name)] if following else lines)


def _list(arguments: argparse.Namespace) -> int:
    inventory = look(Root()).inventory
    if arguments.json:
        print(json.dumps({"regions": [_region_document(inventory, r) for r in inventory.regions]}, indent=2))
    elif not inventory.regions:
        print("no region of persistent memory")
    else:
        lines = [line for region in inventory.regions for line in _region_lines(inventory, region)]
        print(folded("\n".join(lines), sys.stdout))
    return Exit.OK


def _region_lines(inventory: Inventory, region: Region) -> list[str]:
    whole = 0 if region.span is None else region.span.size
    iset = "no iset_id" if region.iset_id is None else f"iset_id 0x{region.iset_id:x}"
    node = "no node" if region.target_node is None else f"node {region.target_node}"
    lines = [f"{region.name}: {iset}, {size(whole)}, {size(region.available)} free, {node}"]
    lines += [
        f"  tierd would not use its free capacity: {reason.words}"
        for reason in of_region(inventory, region).reasons
    ]
    for namespace in region.namespaces:
        span = 0 if namespace.span is None else namespace.span.size
        label = f" {clean(namespace.label)}" if namespace.label else ""
        lines.append(f"  {namespace.name} {namespace.uuid or '-'}{label}: {size(span)} {_use(namespace)}")
    return lines


def _use(namespace: Namespace) -> str:
    state = "" if namespace.enabled else ", disabled"
    if namespace.dax is None:
        return f"{namespace.mode}{state}"
    if not namespace.dax.system_ram:
        return f"{namespace.mode} {namespace.dax.name}{state}"
    movable = sum(block.movable for block in namespace.dax.blocks)
    return (
        f"system-ram {namespace.dax.name}, {movable} of {len(namespace.dax.blocks)} blocks online and"
        " movable"
    )


def _region_document(inventory: Inventory, region: Region) -> dict[str, object]:
    return {
        "name": region.name,
        "iset_id": None if region.iset_id is None else f"0x{region.iset_id:x}",
        "size": None if region.span is None else region.span.size,
        "available": region.available,
        "target_node": region.target_node,
        "refusals": [reason.words for reason in of_region(inventory, region).reasons],
        "namespaces": [
            {
                "name": n.name,
                "uuid": n.uuid,
                "label": n.label,
                "mode": n.mode,
                "size": None if n.span is None else n.span.size,
                "enabled": n.enabled,
                "device": None if n.dax is None else n.dax.name,
                "system_ram": n.dax is not None and n.dax.system_ram,
                "movable_blocks": 0 if n.dax is None else sum(block.movable for block in n.dax.blocks),
            }
            for n in region.namespaces
        ],
    }
