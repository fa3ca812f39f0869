"""Carrying out a provisioning plan: one step, a look at the machine, a new plan, until there is nothing to
do.

Every step is recorded before it is taken and after. Whatever a run that was killed left behind is put back
or finished by the next one. Nothing that a tool says about its success is believed; sysfs is read instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tierd.core import provision
from tierd.core.capacity import whole_blocks
from tierd.core.inventory import DaxDevice, Inventory, Namespace
from tierd.core.policy import ProvisionRequest
from tierd.core.provision import (
    ONLINE_POLICY,
    Action,
    ProvisionPlan,
    Setting,
    Step,
)
from tierd.core.refusals import same_tier
from tierd.core.share_plan import SharePlan
from tierd.core.shares import MOST_SLICES, plan_share
from tierd.errors import TierdError
from tierd.kernel.dax import read_device
from tierd.kernel.intents import MAKING, Intent, Value
from tierd.kernel.inventory import read_nodes
from tierd.kernel.memory_blocks import (
    read_block_size,
    write_setting,
)
from tierd.kernel.tools import AbandonedError
from tierd.service.draining import deadline_of, drain
from tierd.service.ownership import require_ours, require_unused
from tierd.service.recovery import COMMAND_DEADLINE, Recovery

DRIVER_DEADLINE = 15.0
"""Seconds for udev to load device_dax and the driver to bind."""
MOST_STEPS = 6 * MOST_SLICES


class ConversionError(TierdError):
    """A step did not have the effect that it was to have; the message says what is and what was done about
    it."""


@dataclass(frozen=True, slots=True)
class Converter(Recovery):
    """What a conversion works with. Used by tierd-convert only, under its lock, from the main thread."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    drain_deadline: float | None = None

    def run(self, request: ProvisionRequest) -> SharePlan:
        """Do what the plan says until it is done or refused; the last plan. Raises ConversionError and
        others of TierdError."""
        previous: tuple[str, Step] | None = None
        for _ in range(MOST_STEPS):
            inventory = self.look()
            share = plan_share(inventory, request)
            plan = share.next
            if plan is None:
                return share
            step = plan.steps[0]
            if (plan.request.name, step) == previous:
                raise ConversionError(
                    f"{plan.request.name}: {step.action} had no effect; it is not tried again"
                )
            self.take(inventory, plan, step)
            previous = (plan.request.name, step)
        raise ConversionError(f"{request.name}: not done after {MOST_STEPS} steps")

    def take(self, inventory: Inventory, plan: ProvisionPlan, step: Step) -> None:
        """Take one step of a plan: recorded before and after, read back. Raises ConversionError."""
        request = plan.request
        device = None if plan.namespace is None or plan.namespace.dax is None else plan.namespace.dax
        facts: dict[str, Value] = {
            "region": plan.region,
            "iset_id": f"0x{request.iset_id:x}",
            "uuid": None if plan.namespace is None else plan.namespace.uuid,
            "label_uuid": None if plan.namespace is None else plan.namespace.label_uuid,
            "namespace": None if plan.namespace is None else plan.namespace.name,
            "device": None if device is None else device.name,
            "size": None if plan.numbers is None else plan.numbers.namespace,
            "online_policy": inventory.online_policy,
        }
        if plan.namespace is not None:
            self._require_free(plan.namespace, step, request.name)
        acts = tuple(self._act_text(act) for act in step.acts)
        saved = {ONLINE_POLICY: inventory.online_policy} if _changes_policy(step) else {}
        intent = self.intents.begin(request.name, step.action.value, acts, facts, saved)
        fields = {
            "TIERD_INTENT": intent.id,
            "TIERD_ACTION": step.action.value,
            "TIERD_ARGV": "\n".join(acts),
        }
        self.report("begun", f"{request.name}: {step.words}", fields)
        try:
            if step.action is Action.OFFLINE_BLOCKS:
                assert device is not None
                said = self._drain(plan.request.name, device, fields)
            else:
                said = self._perform(intent, step)
            after = self._check(plan, step, device, said)
        except AbandonedError as error:
            # the intent stays open: what the kernel does under the tool is put right when that has ended
            raise ConversionError(f"{request.name}: {error}", hint=error.hint) from error
        except TierdError as error:
            undone = self._undo(intent, step, device)
            words = "; ".join((str(error), *undone))
            self.intents.conclude(intent, "failed", words, {})
            raise ConversionError(f"{request.name}: {words}", hint=error.hint) from error
        self.intents.conclude(intent, "done", step.words, after)
        after_fields = {f"TIERD_{key.upper()}": str(value) for key, value in after.items()}
        self.report("step-done", f"{request.name}: {step.action} done", {**fields, **after_fields})

    def _perform(self, intent: Intent, step: Step) -> str:
        """Run the step's acts; what the tools said. The policy is put back when they have ended: the kernel
        asks for it for each block that it adds."""
        said = []
        ended = True
        try:
            for act in step.acts:
                if isinstance(act, Setting):
                    try:
                        write_setting(self.root, act.path, act.value)
                    except TierdError as error:
                        # one block that fails is no reason to do without the others
                        if step.action is not Action.ONLINE_BLOCKS:
                            raise
                        said.append(str(error))
                    continue
                result = self.tools.run(act.argv, deadline=COMMAND_DEADLINE)
                if result.code:
                    said.append(
                        f"{act.argv[0]} ended with exit code {result.code}: {result.stderr or 'silent'}"
                    )
        except AbandonedError:
            ended = False
            raise
        finally:
            if ended:
                for path, value in intent.saved.items():
                    self._put_back(path, value)
        return "; ".join(said)

    def _check(
        self, plan: ProvisionPlan, step: Step, device: DaxDevice | None, said: str
    ) -> dict[str, Value]:
        """Read back what the step did. Raises ConversionError when that is not what it was to do."""
        because = f" ({said})" if said else ""
        if step.action is Action.SIZE_NAMESPACE:
            if provision.find_namespace(self.look(), plan.request) is None:
                raise ConversionError(f"the namespace is still without label and size{because}")
            return {}
        if step.action is Action.DESTROY_NAMESPACE:
            return self._check_gone(plan, because)
        if device is None or step.action in MAKING:
            return self._check_namespace(plan, because)
        block_size = read_block_size(self.root)
        now = read_device(self.root, device.name, block_size)
        wanted = whole_blocks(now.span, block_size).size // block_size
        movable = sum(block.movable for block in now.blocks)
        online = sum(block.online for block in now.blocks)
        if step.action is Action.OFFLINE_BLOCKS:
            if online:
                raise ConversionError(f"{online} of {wanted} blocks of {now.name} are online again{because}")
            return {"device": now.name, "online_blocks": 0, "bytes": 0}
        if step.action is Action.DEVDAX:
            if now.system_ram or now.blocks:
                raise ConversionError(f"{now.name} has not left the kernel{because}")
            return {"device": now.name}
        if not now.system_ram:
            raise ConversionError(f"{now.name} is not in system-ram mode{because}")
        if online > movable:
            raise ConversionError(
                f"{online - movable} of {wanted} blocks came online outside ZONE_MOVABLE{because}"
            )
        if step.action is Action.ONLINE_BLOCKS and movable != wanted:
            raise ConversionError(f"only {movable} of {wanted} blocks are online{because}")
        nodes = {block.node for block in now.blocks if block.online}
        if nodes - {now.target_node}:
            raise ConversionError(
                f"blocks of {now.name} are on nodes {nodes}, not on {now.target_node}{because}"
            )
        if tier := same_tier(read_nodes(self.root), now.target_node):
            raise ConversionError(
                f"node {now.target_node} came into {tier} together with DRAM: nothing could be promoted or"
                " demoted"
            )
        for words in self._start_threads(now.name):
            self.report("restored", f"{plan.request.name}: {words}", {})
        return {
            "device": now.name,
            "blocks": wanted,
            "online_blocks": movable,
            "bytes": movable * block_size,
        }

    def _check_namespace(self, plan: ProvisionPlan, because: str) -> dict[str, Value]:
        until = self.clock() + DRIVER_DEADLINE
        while True:
            found = provision.find_namespace(self.look(), plan.request)
            if found is not None and found.mode == "devdax" and found.dax is not None and found.dax.driver:
                size = 0 if found.span is None else found.span.size
                return {"uuid": found.uuid, "namespace": found.name, "device": found.dax.name, "size": size}
            if self.clock() > until or (found is None and because):
                state = (
                    "is not there"
                    if found is None
                    else f"is {found.mode} and has no device in use by a driver"
                )
                raise ConversionError(f"the namespace {state}{because}")
            self.sleep(0.2)

    def _check_gone(self, plan: ProvisionPlan, because: str) -> dict[str, Value]:
        found = provision.find_namespace(self.look(), plan.request)
        if found is not None:
            raise ConversionError(f"{found.name} is still there{because}")
        return {"size": None if plan.numbers is None else plan.numbers.namespace}

    def _drain(self, request: str, device: DaxDevice, fields: Mapping[str, str]) -> str:
        """Empty the device's blocks and take them offline. Raises ConversionError when one stays."""

        deadline = self.drain_deadline
        if deadline is None:
            deadline = deadline_of(len(device.blocks) * read_block_size(self.root))
        more = {**fields, "TIERD_DEADLINE": f"{deadline:g}"}

        def progress(done: int, of: int) -> None:
            words = f"{done} of {of} blocks of {device.name} are empty and offline"
            self.report("draining", f"{request}: {words}", {**more, "TIERD_BLOCKS": f"{done}/{of}"})

        stayed, lost = drain(self.root, device.blocks, deadline, progress)
        if stayed:
            words = (
                f"{len(stayed)} blocks of {device.name} could not be emptied in {deadline:g} s:"
                " what is in use there is pinned, or has no place elsewhere; the others"
            )
            raise ConversionError(
                f"{words} are online again"
                if not lost
                else f"{words} are to come online again, and {len(lost)} did not"
            )
        return ""

    def _undo(self, intent: Intent, step: Step, device: DaxDevice | None) -> list[str]:
        """After a step that failed: memory that is not as it must be goes again."""
        try:
            if device is not None and step.action is Action.SYSTEM_RAM:
                return self._roll_back(intent, device.name)
            if device is not None and step.action is Action.ONLINE_BLOCKS:
                return self._take_back(device)
        except TierdError as error:
            return [f"it could not be undone: {error}"]
        return []

    def _require_free(self, namespace: Namespace, step: Step, request: str) -> None:
        """The last look before a step that takes a namespace from whoever uses it. Raises
        ConversionError."""
        try:
            if step.action in (Action.FINISH_NAMESPACE, Action.DESTROY_NAMESPACE):
                require_ours(self.root, namespace)
            elif step.action is Action.SYSTEM_RAM and namespace.dax is not None:
                require_unused(self.root, namespace.dax.name, (namespace.dax.name,))
        except TierdError as error:
            raise ConversionError(f"{request}: {error}") from error


def _changes_policy(step: Step) -> bool:
    return any(isinstance(act, Setting) and act.path == ONLINE_POLICY for act in step.acts)
