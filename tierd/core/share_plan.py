"""The plan for a whole request, as a value: one part for each of its slices. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tierd.core.inventory import Namespace, Region
from tierd.core.policy import ProvisionRequest
from tierd.core.provision import ProvisionPlan, Step, Verdict
from tierd.core.refusals import LABEL_PREFIX, Refusal


@dataclass(frozen=True, slots=True)
class ShareNumbers:
    """Bytes. online: the request's memory today; memory: what it is, or will be; blocks: how many.

    asked: what the policy's words come to in whole memory blocks; None where that depends on what is free.
    lost: what of the request's namespaces is, or will be, neither memory nor anything else; lost_now: today.
    rest: what of the region is, or will be, left to others. region: the region's size.
    page_structures: DRAM that the steps spend; negative when they give it back.
    drained: memory in whose place other memory must be found before it can go.
    """

    region: int
    asked: int | None
    online: int
    memory: int
    blocks: int
    lost: int
    lost_now: int
    rest: int
    page_structures: int
    drained: int


@dataclass(frozen=True, slots=True)
class SharePlan:
    """What to do about one request.

    kept: the slices that stay, each with what it still lacks. changes: those that come and go, in order.
    """

    request: ProvisionRequest
    region: str | None
    kept: tuple[ProvisionPlan, ...]
    changes: tuple[ProvisionPlan, ...]
    numbers: ShareNumbers | None = None
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[ProvisionPlan, ...]:
        """One plan for each slice."""
        return (*self.kept, *self.changes)

    @property
    def verdict(self) -> Verdict:
        """`refused` when any part is, `ready` when there is something to run."""
        found = {part.verdict for part in self.parts}
        return next((v for v in (Verdict.REFUSED, Verdict.READY) if v in found), Verdict.DONE)

    @property
    def next(self) -> ProvisionPlan | None:
        """The part whose first step is to be taken now. What is there is brought up whatever else is wrong;
        nothing is changed while anything is."""
        for part in self.kept:
            if part.verdict is Verdict.READY:
                return part
        if self.verdict is Verdict.REFUSED:
            return None
        return next((part for part in self.changes if part.verdict is Verdict.READY), None)

    @property
    def steps(self) -> tuple[Step, ...]:
        """All that would be run, in order."""
        return tuple(step for part in self.parts if part.verdict is Verdict.READY for step in part.steps)

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Every reason, each once."""
        return tuple(dict.fromkeys(refusal for part in self.parts for refusal in part.refusals))

    @property
    def target_node(self) -> int | None:
        """The node of the memory."""
        return next((part.target_node for part in self.parts if part.target_node is not None), None)


def slice_name(name: str, number: int) -> str:
    """A slice's name: that of its request, then ``NAME+2`` and so on, which no request can have."""
    return name if number == 1 else f"{name}+{number}"


def slices_of(region: Region, request: ProvisionRequest) -> list[tuple[int, Namespace]]:
    """The request's namespaces, by the number in their label."""
    label = LABEL_PREFIX + request.name
    found = []
    for namespace in region.namespaces:
        if namespace.label == label:
            found.append((1, namespace))
        elif namespace.label.startswith(f"{label}+"):
            number = namespace.label.removeprefix(f"{label}+")
            if re.fullmatch("[1-9][0-9]{0,2}", number) and number != "1":
                found.append((int(number), namespace))
    return sorted(found, key=lambda item: (item[0], item[1].name))
