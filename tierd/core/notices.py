"""What an operator should know about the devices, one sentence each, for `tierctl status`. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tierd.core.policy import ProvisionMode, ProvisionRequest
from tierd.core.text import size


@dataclass(frozen=True, slots=True)
class SeenRegion:
    """A region as everybody may see it. Sizes in bytes. iset_id: None without labels."""

    name: str
    iset_id: int | None
    size: int
    available: int


def notices(
    regions: Iterable[SeenRegion], requests: Iterable[ProvisionRequest], drained: frozenset[int]
) -> tuple[str, ...]:
    """Regions that were drained, those that nobody asks for, and requests whose region is not there."""
    regions, requests = tuple(regions), tuple(requests)
    wanted = {request.iset_id for request in requests}
    found = []
    for region in regions:
        if region.iset_id in drained:
            found.append(f"{region.name} is drained: `tierctl drain` says whether it is safe to remove")
        elif region.iset_id is None:
            found.append(f"{region.name}: {size(region.size)} of persistent memory without labels")
        elif region.iset_id not in wanted and region.available:
            found.append(
                f"{region.name}: {size(region.available)} free, which no request of the policy names"
                f" (iset_id 0x{region.iset_id:x})"
            )
    there = {region.iset_id for region in regions}
    found += [
        f"request {request.name}: no region has iset_id 0x{request.iset_id:x}"
        for request in requests
        if request.mode is ProvisionMode.APPLY and request.iset_id not in there
    ]
    return tuple(found)
