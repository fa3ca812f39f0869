"""One look at the machine, by which requests of any kind are planned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tierd.core.any_plan import AnyPlan
from tierd.core.cxl import plan_cxl
from tierd.core.cxl_machine import CxlMachine
from tierd.core.inventory import Inventory
from tierd.core.policy import AnyRequest, CxlRequest, NamespaceRequest
from tierd.core.shares import plan_share
from tierd.kernel.cxl import take_cxl
from tierd.kernel.evidence import examine
from tierd.kernel.intents import Intents
from tierd.kernel.inventory import take_inventory
from tierd.kernel.paths import Root
from tierd.kernel.tools import Tools

Allow = Callable[[str], tuple[Path, str]]
"""Takes the UUID of a namespace; gives the file without which it is not taken, and what is wrong with it."""


# no slots: what has been looked at is kept in the instance
@dataclass(frozen=True)
class Look:
    """The machine as it is now. Looked at when first asked for, and only at what the requests concern: CXL
    memory takes no ndctl. Used by tierctl and by tierd-convert, which takes a new one for each look.
    """

    root: Root
    tools: Tools
    record: Intents

    @cached_property
    def inventory(self) -> Inventory:
        """Persistent memory. Raises what take_inventory raises."""
        return take_inventory(self.root, self.tools, self.record)

    @cached_property
    def cxl(self) -> CxlMachine:
        """CXL memory. Raises what take_cxl raises."""
        return take_cxl(self.root, self.tools, self.record)

    def plan(self, request: AnyRequest, allow: Allow) -> AnyPlan:
        """What is to be done about the request now. Runs nothing. Raises as the two above do."""
        if isinstance(request, CxlRequest):
            return plan_cxl(self.cxl, request)
        if isinstance(request, NamespaceRequest):
            return examine(self.root, self.tools, self.inventory, request, allow(request.identity))
        return plan_share(self.inventory, request)
