"""How memory becomes free capacity again: one namespace of tierd's own is drained, taken offline and given
back.

Pure; used by core/shares.py, which says which one. Nothing that tierd did not make is ever given back.
"""

from __future__ import annotations

from tierd.core import capacity, refusals
from tierd.core.inventory import Inventory, Namespace, Region
from tierd.core.policy import ProvisionRequest
from tierd.core.provision import (
    Action,
    Command,
    Numbers,
    ProvisionPlan,
    Setting,
    Step,
    Verdict,
    memory_of,
    target_of,
)
from tierd.core.units import format_size

BLOCK_STATE = "devices/system/memory/memory{}/state"
"""The path of a memory block's state, below the sysfs root."""


def plan_release(
    inventory: Inventory, request: ProvisionRequest, region: Region, namespace: Namespace
) -> ProvisionPlan:
    """What is to be done to make `namespace`, which is labelled as `request` says, free capacity again."""
    dax, span = namespace.dax, namespace.span
    memory = memory_of(namespace, inventory.block_size)
    target = target_of(region, namespace)
    blocks = () if dax is None else dax.blocks
    online = tuple(block for block in blocks if block.online)
    leaving = len(online) * inventory.block_size
    found = refusals.of_release(inventory, request, region, namespace)
    found += refusals.of_room(inventory, target, leaving)
    steps = list(leaving_steps(inventory, namespace))
    size = 0 if span is None else span.size
    steps.append(
        Step(
            Action.DESTROY_NAMESPACE,
            (Command(("ndctl", "destroy-namespace", "-r", region.name, "-f", namespace.name)),),
            f"give {format_size(size)} back to {region.name}: the label of {namespace.name} and its info"
            " block go",
            f"nothing of the {format_size(size)} of {namespace.name} can be read back, which was memory",
        )
    )
    numbers = Numbers(
        namespace=size,
        memory=memory.size,
        blocks=memory.size // inventory.block_size,
        lost=size - memory.size,
        page_structures=-capacity.page_structures(len(blocks) * inventory.block_size),
    )
    return ProvisionPlan(
        request,
        Verdict.REFUSED if found else Verdict.READY,
        region.name,
        namespace,
        target,
        tuple(steps),
        numbers,
        tuple(found),
    )


def leaving_steps(inventory: Inventory, namespace: Namespace) -> tuple[Step, ...]:
    """What takes the namespace's memory out of the kernel, and leaves the namespace as it is. Also for
    core/drain.py."""
    dax = namespace.dax
    if dax is None:
        return ()
    online = tuple(block for block in dax.blocks if block.online)
    steps = []
    if online:
        leaving = len(online) * inventory.block_size
        steps.append(
            Step(
                Action.OFFLINE_BLOCKS,
                tuple(Setting(BLOCK_STATE.format(b.number), "offline") for b in reversed(online)),
                f"drain {len(online)} memory blocks of {namespace.name}, {format_size(leaving)}, and take"
                " them offline, the last one first; what is in use there moves to other memory",
            )
        )
    if dax.system_ram:
        steps.append(
            Step(
                Action.DEVDAX,
                (Command(("daxctl", "reconfigure-device", "-m", "devdax", "-f", dax.name)),),
                f"take the offline memory of {dax.name} out of the kernel",
            )
        )
    return tuple(steps)
