"""Carrying out a plan for CXL memory, as conversion.py does for persistent memory: one step, a look, a new
plan; an intent before each step and a result after it; the truth from sysfs."""

from __future__ import annotations

from collections.abc import Mapping

from tierd.core.capacity import whole_blocks
from tierd.core.cxl import CxlPlan, plan_cxl, take_down
from tierd.core.cxl_machine import CxlMachine, CxlRegion, begun_regions
from tierd.core.policy import CxlRequest
from tierd.core.provision import ONLINE_POLICY, Action, Setting, Step, Verdict
from tierd.core.refusals import same_tier
from tierd.errors import TierdError
from tierd.kernel.cxl import take_cxl
from tierd.kernel.intents import CXL_MADE, Intent, Value
from tierd.kernel.inventory import read_nodes
from tierd.kernel.memory_blocks import write_setting
from tierd.kernel.tools import AbandonedError
from tierd.service.conversion import DRIVER_DEADLINE, ConversionError, Converter
from tierd.service.ownership import require_region_unused

MOST_STEPS = 8
"""Taking down what a killed run left, making the region, and a step of grace for each."""


class CxlConverter(Converter):
    """A converter for requests for CXL memory as well. Used by tierd-convert only, under its lock."""

    def look_cxl(self) -> CxlMachine:
        """The machine now. Raises what take_cxl raises."""
        return take_cxl(self.root, self.tools, self.intents)

    def recover(self) -> None:
        """As of persistent memory; a region that a run which was stopped began to make is known from then
        on. Raises what look_cxl raises too."""
        begun = [intent for intent in self.intents.open_intents() if intent.action == CXL_MADE]
        super().recover()
        for intent in begun:
            if intent.boot == self.intents.boot and (region := self._stopped_over(intent)) is not None:
                words = f"{region.name} is what an earlier run that was stopped began to make"
                facts = {"cxl_region": region.name, "cxl_identity": region.identity}
                self.intents.conclude(intent, "interrupted", words, facts)
                self.report("restored", f"{intent.request}: {words}", {"TIERD_INTENT": intent.id})

    def _stopped_over(self, intent: Intent) -> CxlRegion | None:
        """The region that the run began; None when there is none, or others may have made it since."""
        serials, before = intent.facts.get("cxl_serials"), intent.facts.get("cxl_before")
        size = intent.facts.get("size")
        if not isinstance(serials, list) or not isinstance(before, list) or not isinstance(size, int):
            return None
        found = begun_regions(self.look_cxl(), [int(serial, 16) for serial in serials], before, size)
        # the tool makes memory; what is in devdax mode was made so by others
        fitting = [r for r in found if r.unfinished or (r.dax is not None and r.dax.system_ram)]
        return fitting[0] if len(fitting) == len(found) == 1 else None

    def run_cxl(self, request: CxlRequest) -> CxlPlan:
        """Do what the plan says until it is done or refused; the last plan. Raises ConversionError and
        others of TierdError."""
        previous: Step | None = None
        for _ in range(MOST_STEPS):
            machine = self.look_cxl()
            plan = plan_cxl(machine, request)
            if plan.verdict is not Verdict.READY:
                return plan
            step = plan.steps[0]
            if step == previous:
                raise ConversionError(f"{request.name}: {step.action} had no effect; it is not tried again")
            self._take_cxl(machine, plan, step)
            previous = step
        raise ConversionError(f"{request.name}: not done after {MOST_STEPS} steps")

    def _take_cxl(self, machine: CxlMachine, plan: CxlPlan, step: Step) -> None:
        name, region = plan.request.name, plan.region
        device = None if region is None or region.dax is None else region.dax
        facts: dict[str, Value] = {
            "cxl_serials": [f"{serial:#x}" for serial in plan.request.serials],
            "cxl_region": None if region is None else region.name,
            "cxl_identity": None if region is None else region.identity,
            "device": None if device is None else device.name,
            "size": None if plan.numbers is None else plan.numbers.namespace,
            "online_policy": machine.inventory.online_policy,
            "cxl_before": [known.identity for known in machine.regions],
        }
        if step.action is Action.DESTROY_CXL_REGION:
            assert region is not None
            self._require_unused_region(name, region)
        acts = tuple(self._act_text(act) for act in step.acts)
        changes = any(isinstance(act, Setting) and act.path == ONLINE_POLICY for act in step.acts)
        saved = {ONLINE_POLICY: machine.inventory.online_policy} if changes else {}
        intent = self.intents.begin(name, step.action.value, acts, facts, saved)
        fields = {
            "TIERD_INTENT": intent.id,
            "TIERD_ACTION": step.action.value,
            "TIERD_ARGV": "\n".join(acts),
        }
        self.report("begun", f"{name}: {step.words}", fields)
        said, ran = "", False
        try:
            if step.action is Action.OFFLINE_BLOCKS:
                assert device is not None
                self._drain(name, device, fields)
            else:
                said = self._perform(intent, step)
            # `cxl` comes first; that udev is slow says nothing of the region
            ran = not said.startswith("cxl ")
            after = self._check_cxl(plan, step, intent, said, ran)
        except AbandonedError as error:
            # as in Converter.take: the intent stays open
            raise ConversionError(f"{name}: {error}", hint=error.hint) from error
        except TierdError as error:
            left: dict[str, Value] = {}
            words = str(error)
            if step.action is Action.CREATE_CXL_REGION:
                undone, left = self._undo_cxl(plan.request, intent, ran, fields)
                words = "; ".join((words, *undone))
            self.intents.conclude(intent, "failed", words, left)
            raise ConversionError(f"{name}: {words}", hint=error.hint) from error
        self.intents.conclude(intent, "done", step.words, after)
        after_fields = {f"TIERD_{key.upper()}": str(value) for key, value in after.items()}
        self.report("step-done", f"{name}: {step.action} done", {**fields, **after_fields})

    def _require_unused_region(self, request: str, region: CxlRegion) -> None:
        """The last look before a region goes. Raises ConversionError."""
        try:
            require_region_unused(self.root, region)
        except TierdError as error:
            hint = error.hint or f"end what uses it, then start tierd-convert@{request} again"
            raise ConversionError(f"{request}: {error}", hint=hint) from error

    def _check_cxl(
        self, plan: CxlPlan, step: Step, intent: Intent, said: str, ran: bool
    ) -> dict[str, Value]:
        """Read back what the step did. Raises ConversionError when that is not what it was to do."""
        because = f" ({said})" if said else ""
        if step.action is Action.CREATE_CXL_REGION:
            return self._check_created(plan, intent, because, ran)
        assert plan.region is not None
        region = self._region(plan.region.name)
        if step.action is Action.DESTROY_CXL_REGION:
            if region is not None:
                raise ConversionError(f"{region.name} is still there{because}")
            return {"cxl_region": "gone"}
        if region is None or region.dax is None:
            raise ConversionError(f"{plan.region.name} went away{because}")
        online = [block for block in region.dax.blocks if block.online]
        if step.action is Action.OFFLINE_BLOCKS:
            if online:
                raise ConversionError(f"{len(online)} blocks of {region.name} are online again{because}")
            return {"device": region.dax.name, "online_blocks": 0, "bytes": 0}
        acted = {act.path for act in step.acts if isinstance(act, Setting)}
        stayed = [b for b in region.dax.blocks if f"memory{b.number}/" in str(acted) and not b.movable]
        if stayed:
            raise ConversionError(
                f"{len(stayed)} blocks of {region.name} are not online and movable{because}"
            )
        return self._facts(region)

    def _begun(self, request: CxlRequest, intent: Intent, ran: bool) -> list[CxlRegion]:
        """What can be the region that was just made. ran: whether the tool said that it made one; when it
        did not, one that can be used is of others, who were quicker."""
        before, size = intent.facts.get("cxl_before"), intent.facts.get("size")
        assert isinstance(before, list) and isinstance(size, int)
        found = begun_regions(self.look_cxl(), request.serials, before, size)
        return [region for region in found if ran or region.unfinished]

    def _check_created(self, plan: CxlPlan, intent: Intent, because: str, ran: bool) -> dict[str, Value]:
        until = self.clock() + DRIVER_DEADLINE
        while True:
            begun = self._begun(plan.request, intent, ran)
            if len(begun) > 1:
                raise ConversionError(f"{_names(begun)} have appeared together{because}")
            found = begun[0] if begun else None
            if found is not None and found.dax is not None and found.dax.system_ram:
                block_size = self.look_cxl().inventory.block_size
                wanted = whole_blocks(found.dax.span, block_size).size // block_size
                if len(found.dax.blocks) == wanted:
                    break
            if self.clock() > until or (found is None and because):
                state = "is not there"
                if found is not None:
                    state = "is there, and the kernel has not taken it as memory"
                raise ConversionError(f"the region {state}{because}")
            self.sleep(0.2)
        fixed = [block for block in found.dax.blocks if not block.movable]
        if fixed:
            raise ConversionError(
                f"{len(fixed)} of {wanted} blocks of {found.name} are not online in ZONE_MOVABLE{because}"
            )
        node, nodes = found.dax.target_node, read_nodes(self.root)
        if any(n.number == node and n.dram for n in nodes):
            raise ConversionError(f"the memory of {found.name} joined node {node}, which is DRAM")
        if tier := same_tier(nodes, node):
            raise ConversionError(
                f"node {node} came into {tier} together with DRAM: nothing could be promoted or demoted"
            )
        for words in self._start_threads(found.dax.name):
            self.report("restored", f"{plan.request.name}: {words}", {})
        return self._facts(found)

    def _facts(self, region: CxlRegion) -> dict[str, Value]:
        assert region.dax is not None
        movable = sum(block.movable for block in region.dax.blocks)
        size = self.look_cxl().inventory.block_size
        return {
            "cxl_region": region.name,
            "cxl_identity": region.identity,
            "device": region.dax.name,
            "blocks": len(region.dax.blocks),
            "online_blocks": movable,
            "bytes": movable * size,
        }

    def _region(self, name: str) -> CxlRegion | None:
        return next((region for region in self.look_cxl().regions if region.name == name), None)

    def _undo_cxl(
        self, request: CxlRequest, intent: Intent, ran: bool, fields: Mapping[str, str]
    ) -> tuple[list[str], dict[str, Value]]:
        """Take down what a failed creation left; what was done in words, and for the record. ran: whether
        the tool said that it made a region."""
        left: dict[str, Value] = {}
        try:
            begun = self._begun(request, intent, ran)
            if not begun:
                return [], {"cxl_region": "gone"}
            if len(begun) > 1:
                return [f"which of them tierd's is cannot be told: {_names(begun)} are left alone"], left
            (region,) = begun
            left = {"cxl_region": region.name, "cxl_identity": region.identity}
            if region.dax is not None and region.dax.system_ram:
                self._drain(request.name, region.dax, fields)
            require_region_unused(self.root, region)
            for act in take_down(region).acts:
                if isinstance(act, Setting):
                    write_setting(self.root, act.path, act.value)
                else:
                    self.tools.run(act.argv)
            if self._region(region.name) is None:
                return [f"{region.name} was taken down again"], {"cxl_region": "gone"}
            return [f"{region.name} could not be taken down"], left
        except TierdError as error:
            return [f"it could not be undone: {error}"], left


def _names(regions: list[CxlRegion]) -> str:
    return " and ".join(region.name for region in regions)
