"""Emptying a region so that its modules can go: nothing of it is memory then, and nothing is destroyed.

A module is removed as a whole, and takes every region with it that it is part of; so what is drained is a
region, whoever made memory of it. Pure; used by `tierctl drain`, which shows it, and by tierd-drain@, which
takes one step after the other and plans anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tierd.core import refusals
from tierd.core.evidence import regions_asked
from tierd.core.inventory import Inventory, Namespace, Region, Users
from tierd.core.picture import Picture
from tierd.core.policy import AnyRequest, CxlRequest, ProvisionRequest
from tierd.core.provision import ProvisionPlan, Verdict, target_of
from tierd.core.refusals import LABEL_PREFIX, Refusal
from tierd.core.release import leaving_steps
from tierd.core.text import plural
from tierd.errors import GoneError, TierdError


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """What is to be done until nothing of `region` is memory: one part for each namespace that is.

    refusals: every reason why nothing is done. leaving: bytes of memory that go.
    """

    region: Region
    parts: tuple[ProvisionPlan, ...]
    refusals: tuple[Refusal, ...]
    leaving: int

    @property
    def verdict(self) -> Verdict:
        """`done` when nothing of it is memory."""
        if not self.parts:
            return Verdict.DONE
        return Verdict.REFUSED if self.refusals else Verdict.READY


def find_region(inventory: Inventory, iset_id: int) -> Region:
    """The region with that interleave set. Raises GoneError when none has it, TierdError when several
    have."""
    found = [region for region in inventory.regions if region.iset_id == iset_id]
    if not found:
        raise GoneError(f"no region has iset_id {iset_id:#x}")
    if len(found) > 1:
        names = ", ".join(region.name for region in found)
        raise TierdError(f"{names} all have iset_id {iset_id:#x}")
    return found[0]


def plan_drain(inventory: Inventory, region: Region) -> DrainPlan:
    """What is to be done until nothing of `region` is memory. Raises nothing."""
    parts = []
    found: list[Refusal] = []
    leaving: dict[int | None, int] = {}
    for namespace in region.namespaces:
        if not is_memory(namespace):
            continue
        dax = namespace.dax
        assert dax is not None
        target = target_of(region, namespace)
        online = sum(block.online for block in dax.blocks) * inventory.block_size
        leaving[target] = leaving.get(target, 0) + online
        found += refusals.of_leaving(dax)
        request = ProvisionRequest(_name(namespace), region.iset_id or 0, None)
        steps = leaving_steps(inventory, namespace)
        parts.append(ProvisionPlan(request, Verdict.READY, region.name, namespace, target, steps))
    for node, amount in leaving.items():
        found += refusals.of_room(inventory, node, amount)
    return DrainPlan(region, tuple(parts), tuple(found), sum(leaving.values()))


def is_memory(namespace: Namespace) -> bool:
    """Whether the kernel has any of it as memory, online or not."""
    dax = namespace.dax
    return dax is not None and (dax.system_ram or any(block.online for block in dax.blocks))


def _name(namespace: Namespace) -> str:
    # what tierd did not make is recorded under a name that no request can have
    if namespace.label.startswith(LABEL_PREFIX):
        return namespace.label.removeprefix(LABEL_PREFIX)
    return f"drain:{namespace.name}"


def hindrances(region: Region, users: Mapping[str, Users]) -> tuple[str, ...]:
    """Why the modules of `region` may not be removed now, one sentence each; none when it is safe.

    users: of each namespace, by its name; one that is missing is not known to be unused.
    """
    found = []
    for namespace in region.namespaces:
        if is_memory(namespace):
            assert namespace.dax is not None
            online = sum(block.online for block in namespace.dax.blocks)
            found.append(f"{namespace.dax.name} is memory: {plural(online, 'block')} of it online")
        seen = users.get(namespace.name, Users(blind="it was not looked at"))
        found += [f"{namespace.name} is in use: {use.words}" for use in seen.uses]
        if seen.blind:
            found.append(f"{namespace.name}: who uses it cannot be told: {seen.blind}")
    return tuple(found)


def regions_of(picture: Picture, requests: Iterable[AnyRequest], name: str) -> frozenset[int]:
    """The interleave sets that `name` stands for: of a request, a DIMM, a region, a namespace, a dax device,
    or one itself, as ``0x9f2c0e5a1b3d7788``.

    Raises GoneError when there is nothing of that name, TierdError when it stands for two things, or for one
    that cannot be known again.
    """
    regions = picture.inventory.regions if picture.inventory else ()
    if name.startswith("0x"):
        try:
            return frozenset({int(name, 16)})
        except ValueError:
            raise GoneError(f"{name} is no iset_id") from None
    asking = [request for request in requests if request.name == name]
    by_request = {
        iset for request in asking if picture.inventory for iset in regions_asked(picture.inventory, request)
    }
    dimms = {region for dimm in picture.dimms if dimm.name == name for region in dimm.regions}
    namespace = next((view.namespace for view in picture.dax if view.name == name), None)
    found = [
        region
        for region in regions
        if region.name == name
        or region.name in dimms
        or any(n.name in (name, namespace) for n in region.namespaces)
    ]
    if by_request and found and by_request != {region.iset_id for region in found}:
        raise TierdError(f"{name} is a request of another region, and a device: name the region")
    nameless = [region.name for region in found if region.iset_id is None]
    if nameless:
        raise TierdError(
            f"{', '.join(nameless)} has no iset_id: it would not be known again after a reboot",
            hint="daxctl offline-memory empties what of it is memory",
        )
    if by_request or found:
        return frozenset(by_request or {region.iset_id for region in found if region.iset_id is not None})
    if any(isinstance(request, CxlRequest) for request in asking):
        raise TierdError(
            f"{name} asks for CXL memory, which is not drained by region",
            hint=f"tierctl provision set {name} none empties it and gives it back",
        )
    if asking:
        raise GoneError(f"what the request {name} asks for is not there")
    if any(view.name == name for view in picture.dax):
        raise TierdError(
            f"{name} is in no region of persistent memory", hint=f"daxctl offline-memory {name} empties it"
        )
    raise GoneError(f"there is no request, DIMM, region, namespace or dax device named {name}")
