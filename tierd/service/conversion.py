"""Carrying out a provisioning plan: one step, a look at the machine, a new plan, until there is nothing to
do.

Every step is recorded before it is taken and after. Whatever a run that was killed left behind is put back
or finished by the next one. Nothing that a tool says about its success is believed; sysfs is read instead.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tierd.core import provision
from tierd.core.capacity import whole_blocks
from tierd.core.inventory import DaxDevice, Inventory, Namespace
from tierd.core.policy import ProvisionRequest
from tierd.core.provision import (
    MEMORY_POLICY,
    ONLINE_POLICY,
    Action,
    Command,
    ProvisionPlan,
    Setting,
    Step,
)
from tierd.core.provision_text import act_text
from tierd.core.refusals import same_tier
from tierd.core.share_plan import SharePlan
from tierd.core.shares import MOST_SLICES, plan_share
from tierd.errors import GoneError, TierdError
from tierd.kernel.dax import read_device
from tierd.kernel.files import read_text
from tierd.kernel.intents import MAKING, Intent, Intents, Value
from tierd.kernel.inventory import read_nodes, take_inventory
from tierd.kernel.memory_blocks import (
    block_state,
    missing_threads,
    read_block_size,
    take_offline,
    write_setting,
)
from tierd.kernel.paths import Root
from tierd.kernel.tools import ToolError, Tools
from tierd.service.draining import deadline_of, drain
from tierd.service.ownership import require_ours, require_unused

ROLL_BACK = "roll-back"
COMMAND_DEADLINE = 120.0
"""Seconds for one call of ndctl or daxctl: a terabyte takes the kernel tens of seconds to take up."""
DRIVER_DEADLINE = 15.0
"""Seconds for udev to load device_dax and the driver to bind."""
OFFLINE_DEADLINE = 60.0
MOST_STEPS = 6 * MOST_SLICES

Report = Callable[[str, str, Mapping[str, str]], None]
"""Takes one event: its kind (``begun``, ``draining``, ``step-done``, ``failed``, ``restored``), words, and
fields for the journal."""


class ConversionError(TierdError):
    """A step did not have the effect that it was to have; the message says what is and what was done about
    it."""


@dataclass(frozen=True, slots=True)
class Converter:
    """What a conversion works with. Used by tierd-convert only, under its lock, from the main thread."""

    root: Root
    tools: Tools
    intents: Intents
    report: Report
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    drain_deadline: float | None = None

    def look(self) -> Inventory:
        """The machine now. Raises what take_inventory raises."""
        return take_inventory(self.root, self.tools, self.intents)

    def recover(self) -> None:
        """Put back what runs that were stopped left behind. Raises DeniedError, MalformedError,
        ConversionError."""
        for intent in self.intents.open_intents():
            done = []
            if intent.boot == self.intents.boot:
                for path, value in intent.saved.items():
                    if self._put_back(path, value):
                        done.append(f"{path} is {value} again")
                device = intent.facts.get("device")
                if intent.action == Action.SYSTEM_RAM.value and isinstance(device, str):
                    done += self._roll_back_if_fixed(intent.request, device)
                    done += self._start_threads(device)
            words = (
                f"an earlier run was stopped during {intent.action};"
                f" {', '.join(done) or 'nothing was to be put back'}"
            )
            self.intents.conclude(intent, "interrupted", words, {})
            self.report("restored", f"{intent.request}: {words}", {"TIERD_INTENT": intent.id})

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
        except TierdError as error:
            undone = self._undo(plan, step, device)
            words = "; ".join((str(error), *undone))
            self.intents.conclude(intent, "failed", words, {})
            raise ConversionError(f"{request.name}: {words}", hint=error.hint) from error
        self.intents.conclude(intent, "done", step.words, after)
        after_fields = {f"TIERD_{key.upper()}": str(value) for key, value in after.items()}
        self.report("step-done", f"{request.name}: {step.action} done", {**fields, **after_fields})

    def _perform(self, intent: Intent, step: Step) -> str:
        """Run the step's acts; what the tools said. The policy is put back whatever happens."""
        said = []
        try:
            for act in step.acts:
                if isinstance(act, Setting):
                    write_setting(self.root, act.path, act.value)
                    continue
                result = self.tools.run(act.argv, deadline=COMMAND_DEADLINE)
                if result.code:
                    said.append(
                        f"{act.argv[0]} ended with exit code {result.code}: {result.stderr or 'silent'}"
                    )
        finally:
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
        return {"device": now.name, "online_blocks": movable, "bytes": movable * block_size}

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

        def progress(done: int, of: int) -> None:
            words = f"{done} of {of} blocks of {device.name} are empty and offline"
            self.report("draining", f"{request}: {words}", {**fields, "TIERD_BLOCKS": f"{done}/{of}"})

        deadline = self.drain_deadline
        if deadline is None:
            deadline = deadline_of(len(device.blocks) * read_block_size(self.root))
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

    def _undo(self, plan: ProvisionPlan, step: Step, device: DaxDevice | None) -> list[str]:
        """After a step that failed: memory that is not as it must be goes again."""
        if device is None or step.action not in (Action.SYSTEM_RAM, Action.ONLINE_BLOCKS):
            return []
        try:
            return self._roll_back(plan.request.name, device.name)
        except TierdError as error:
            return [f"it could not be undone: {error}"]

    def _roll_back_if_fixed(self, request: str, device: str) -> list[str]:
        try:
            now = read_device(self.root, device, read_block_size(self.root))
        except GoneError:
            return []
        if now.system_ram and any(block.online and not block.movable for block in now.blocks):
            return self._roll_back(request, device)
        return []

    def _roll_back(self, request: str, name: str) -> list[str]:
        """Take the device's memory offline and make it devdax again; what was done, in words."""
        block_size = read_block_size(self.root)
        now = read_device(self.root, name, block_size)
        if not now.system_ram:
            return []
        command = Command(("daxctl", "reconfigure-device", "-m", "devdax", "-f", name))
        acts = (*(f"take memory{b.number} offline" for b in now.blocks if b.online), self._act_text(command))
        intent = self.intents.begin(request, ROLL_BACK, acts, {"device": name}, {})
        stayed, still = take_offline(self.root, now.blocks, OFFLINE_DEADLINE), False
        if stayed:
            words = f"{len(stayed)} blocks of {name} are in use and stay online until a reboot"
        else:
            with contextlib.suppress(ToolError):  # what became of the device is read below
                self.tools.run(command.argv, deadline=COMMAND_DEADLINE)
            still = read_device(self.root, name, block_size).system_ram
            words = f"{name} was rolled back: its memory is offline" + (
                ", daxctl left the mode" if still else ""
            )
        self.intents.conclude(intent, "failed" if stayed or still else "done", words, {})
        self.report(
            "restored", f"{request}: {words}", {"TIERD_INTENT": intent.id, "TIERD_ARGV": "\n".join(acts)}
        )
        return [words]

    def _start_threads(self, name: str) -> list[str]:
        """Let the kernel start the threads that the device's node lacks, if any; what was done."""
        try:
            now = read_device(self.root, name, read_block_size(self.root))
        except GoneError:
            return []
        movable = [block for block in now.blocks if block.movable]
        node = now.target_node
        if not movable or node is None or not (missing := missing_threads(self.root, node)):
            return []
        last = movable[-1]
        if not take_offline(self.root, (last,), OFFLINE_DEADLINE):
            write_setting(self.root, block_state(last.number), MEMORY_POLICY)
        if still := missing_threads(self.root, node):
            return [f"node {node} is without {' and '.join(still)} until a reboot"]
        return [f"started {' and '.join(missing)}, which the kernel could not"]

    def _put_back(self, path: str, value: str) -> bool:
        """Write `value` where one of our steps wrote MEMORY_POLICY; whether that was necessary.

        A third value is somebody else's, and stays.
        """
        current = read_text(self.root.sys / path).strip()
        if current == value:
            return False
        if current != MEMORY_POLICY:
            words = f"{path} is {current}, which somebody else set: it is not put back to {value}"
            self.report("failed", words, {})
            return False
        write_setting(self.root, path, value)
        if read_text(self.root.sys / path).strip() != value:
            raise ConversionError(f"{path} cannot be put back to {value}")
        return True

    def _require_free(self, namespace: Namespace, step: Step, request: str) -> None:
        """The last look before a step that takes a namespace from whoever uses it. Raises
        ConversionError."""
        if step.action in (Action.FINISH_NAMESPACE, Action.DESTROY_NAMESPACE):
            self._require_unused(namespace.name)
        try:
            if step.action is Action.DESTROY_NAMESPACE:
                require_ours(self.root, namespace)
            elif step.action is Action.SYSTEM_RAM and namespace.dax is not None:
                require_unused(self.root, namespace.dax.name, (namespace.dax.name,))
        except TierdError as error:
            raise ConversionError(f"{request}: {error}") from error

    def _require_unused(self, namespace: str) -> None:
        """Open the namespace's block device for itself alone, as a mount or a volume would hold it."""
        for block in sorted((self.root.nd_devices / namespace / "block").glob("*")):
            path = self.root.dev / block.name
            try:
                os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
            except OSError as error:
                if error.errno == errno.EBUSY:
                    raise ConversionError(f"{path} is in use; {namespace} is left alone") from error

    def _act_text(self, act: Command | Setting) -> str:
        if isinstance(act, Command):
            act = Command(self.tools.resolve(act.argv))
        return act_text(act, str(self.root.sys))


def _changes_policy(step: Step) -> bool:
    return any(isinstance(act, Setting) and act.path == ONLINE_POLICY for act in step.acts)
