"""Giving up a namespace that exists, with its owner's consent, and making memory of what it leaves.

Everything is looked at twice: for the plan, and again under the lock when head and tail have been kept and
nothing is left to do but to act. What comes after is the way of free capacity, which conversion.py goes.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from tierd.config.allow import allowance
from tierd.core.consent import EDGE, NamespacePlan
from tierd.core.evidence import Target, find_target, given_up, taken_of
from tierd.core.inventory import Inventory, Span
from tierd.core.policy import NamespaceRequest
from tierd.core.provision import Action, Command, Step, Verdict, memory_of
from tierd.core.provision_text import act_text
from tierd.errors import TierdError
from tierd.kernel.edges import KEPT, Edges, forget, keep, read_edges
from tierd.kernel.evidence import examine, find_data
from tierd.kernel.intents import Value
from tierd.kernel.tools import AbandonedError
from tierd.service.conversion import MOST_STEPS, ConversionError, Converter
from tierd.service.recovery import COMMAND_DEADLINE


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is kept of a namespace: as what, where its data lies in it, what it held, and the files."""

    name: str
    data: Span
    found: str
    edges: Edges | None
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Taker:
    """Carries out requests for namespaces. Used by tierd-convert only, under its lock, from the main thread.

    beside: the file beside which consent is. kept: where head and tail are kept.
    """

    converter: Converter
    beside: str
    kept: Path = KEPT

    def run(self, request: NamespaceRequest) -> NamespacePlan:
        """Do what the plan says until it is done or refused; the last plan. Raises ConversionError and
        others of TierdError."""
        self._enable_interrupted(request)
        previous: Step | None = None
        for _ in range(MOST_STEPS):
            inventory = self.converter.look()
            plan = self._examine(inventory, request)
            part = plan.next
            if part is None:
                return plan
            step = part.steps[0]
            if step == previous:
                raise ConversionError(f"{request.name}: {step.action} had no effect; it is not tried again")
            if step.action is Action.TAKE_NAMESPACE:
                refused = self._give_up(inventory, plan, step)
                if refused is not None:
                    return refused
            else:
                self.converter.take(inventory, part, step)
            previous = step
        raise ConversionError(f"{request.name}: not done after {MOST_STEPS} steps")

    def _examine(self, inventory: Inventory, request: NamespaceRequest) -> NamespacePlan:
        allow = allowance(self.beside, request.identity)
        return examine(self.converter.root, self.converter.tools, inventory, request, allow, self.kept)

    def _give_up(self, inventory: Inventory, plan: NamespacePlan, step: Step) -> NamespacePlan | None:
        """Keep head and tail, look again, and act. The plan that refuses it, when the second look does."""
        converter, request = self.converter, plan.request
        target = find_target(inventory, request)
        assert target is not None
        kept = self._keep(plan, target)
        try:
            now = converter.look()
            again = self._examine(now, request)
            target_now = find_target(now, request)
            if again.verdict is Verdict.REFUSED:
                forget(kept.files)
                return again
            if target_now != target or again.found != plan.found or not self._still(kept, target):
                raise ConversionError(
                    f"{request.name}: {target.namespace.name} changed while it was looked at"
                )
            intent_facts = _facts(
                request, target, kept, memory_of(target.namespace, inventory.block_size).size
            )
            acts = tuple(self._act_text(act) for act in step.acts if isinstance(act, Command))
        except TierdError:
            forget(kept.files)
            raise
        intent = converter.intents.begin(request.name, step.action.value, acts, intent_facts, {})
        fields = {
            "TIERD_INTENT": intent.id,
            "TIERD_ACTION": step.action.value,
            "TIERD_ARGV": "\n".join(acts),
            "TIERD_KEPT": str(self.kept / kept.name),
        }
        converter.report("begun", f"{request.name}: {step.words}", fields)
        said = self._act(step)
        gone = given_up(converter.look(), target)
        result: dict[str, Value] = {"kept": str(self.kept / kept.name), "found": kept.found}
        if not gone:
            words = f"{target.namespace.name} is still there{f' ({said})' if said else ''}"
            converter.intents.conclude(intent, "failed", words, result)
            raise ConversionError(f"{request.name}: {words}")
        converter.intents.conclude(intent, "done", step.words, result)
        where = f"head and tail are kept as {self.kept / kept.name}"
        converter.report("step-done", f"{request.name}: {step.action} done; {where}", fields)
        return None

    def _keep(self, plan: NamespacePlan, target: Target) -> _Kept:
        """Keep head and tail, unless a run that was stopped did, and they are still what is there."""
        assert plan.evidence is not None and plan.found is not None
        taken = target.taken
        if taken is not None and plan.evidence.as_kept:
            return _Kept(taken.kept, taken.data, taken.found, None, ())
        data = find_data(self.converter.root, target)
        edges = read_edges(data.path, 0, data.span.size, EDGE, data.align)
        name = f"{plan.request.identity}-{secrets.token_hex(4)}"
        about: dict[str, object] = {
            "request": plan.request.name,
            "uuid": plan.request.uuid or None,
            "dimm": plan.request.dimm or None,
            "mode": target.namespace.mode,
            "label": target.namespace.label,
            "holds": plan.found,
            "iset_id": f"0x{target.region.iset_id or 0:x}",
            "namespace_size": 0 if target.namespace.span is None else target.namespace.span.size,
            "data_start": data.span.start,
            "tail_start": data.span.start + data.span.size - len(edges.tail),
        }
        files = keep(self.kept, name, edges, about)
        return _Kept(name, data.span, plan.found, edges, files)

    def _still(self, kept: _Kept, target: Target) -> bool:
        """Whether head and tail are what has just been kept."""
        if kept.edges is None:
            return True  # the second look has compared them
        data = find_data(self.converter.root, target)
        return read_edges(data.path, 0, data.span.size, EDGE, data.align) == kept.edges

    def _act(self, step: Step) -> str:
        """Run the step's command; what it said when it did not end well."""
        said = []
        for act in step.acts:
            assert isinstance(act, Command)
            try:
                result = self.converter.tools.run(act.argv, deadline=COMMAND_DEADLINE)
            except AbandonedError:
                raise
            except TierdError as error:  # what became of it is read from the machine
                said.append(str(error))
                continue
            if result.code:
                said.append(f"{act.argv[0]} ended with exit code {result.code}: {result.stderr or 'silent'}")
        return "; ".join(said)

    def _enable_interrupted(self, request: NamespaceRequest) -> None:
        """ndctl disables a namespace before it destroys it, and a region is disabled before its DIMM gets
        labels. What a run was stopped over cannot be looked at until it is enabled, which changes nothing of
        it."""
        inventory = self.converter.look()
        taken = taken_of(inventory, request)
        if taken is None or taken.done:
            return
        for region in inventory.regions:
            if request.dimm and request.dimm in region.serials and not region.enabled:
                self._enable(request, region.name)
            for namespace in region.namespaces:
                if namespace.label_uuid == taken.label_uuid and not namespace.enabled:
                    self._enable(request, namespace.name)

    def _enable(self, request: NamespaceRequest, device: str) -> None:
        """Enable a region or a namespace."""
        command = "enable-region" if device.startswith("region") else "enable-namespace"
        with contextlib.suppress(TierdError):  # what became of it is looked at
            self.converter.tools.run(("ndctl", command, device), deadline=COMMAND_DEADLINE)
        words = f"{device}, which an earlier run had begun to give up, is to be enabled"
        self.converter.report("restored", f"{request.name}: {words}", {})

    def _act_text(self, act: Command) -> str:
        return act_text(Command(self.converter.tools.resolve(act.argv)), str(self.converter.root.sys))


def _facts(request: NamespaceRequest, target: Target, kept: _Kept, memory: int) -> dict[str, Value]:
    """What the record is to say of the namespace: how it is known again, and what was kept."""
    region, namespace = target.region, target.namespace
    return {
        "region": region.name,
        "iset_id": f"0x{region.iset_id or 0:x}",
        "namespace": namespace.name,
        "taken_uuid": request.identity,
        "taken_label_uuid": namespace.label_uuid or "",
        "label": namespace.label,
        "size": 0 if namespace.span is None else namespace.span.size,
        "memory": memory,
        "found": kept.found,
        "data_start": kept.data.start,
        "data_size": kept.data.size,
        "kept": kept.name,
    }
