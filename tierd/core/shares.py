"""A request's share of a region: which namespaces it consists of, and which are to come or to go.

A namespace of persistent memory is one dax device and cannot be cut while it is memory: the kernel makes its
dax region static (drivers/dax/pmem.c, IORESOURCE_DAX_STATIC; on 6.12 and 7.3 it has no `create`). So a share
grows by one more namespace, a slice, and shrinks by giving slices back, those that leave the least to be
drained. A slice that is too large for that is replaced by a smaller one: made first where there is room for
it, so that what is in use has somewhere to go.

Each slice has an info block of 2 MiB before its data, which cuts the memory block that it lies in. Data ends
on a block's end, so a slice costs one block and no more.

Pure. Called by `tierctl provision plan` and by tierd-convert, which runs `next` and plans anew.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

from tierd.core import capacity, health, refusals, room
from tierd.core.foresight import with_made, without
from tierd.core.inventory import Inventory, Namespace, Region, Span
from tierd.core.policy import ProvisionRequest
from tierd.core.provision import (
    NAMESPACE_ALIGNMENT,
    ProvisionPlan,
    Verdict,
    memory_of,
    numbers_of,
    plan,
)
from tierd.core.refusals import LABEL_PREFIX
from tierd.core.release import plan_release
from tierd.core.share_plan import ShareNumbers, SharePlan, slice_name, slices_of
from tierd.core.units import format_share, format_size

MOST_SLICES = 64
"""Slices of one request. More only come about by growing in very small steps."""

_MOST_COMBINED = 12


def plan_share(inventory: Inventory, request: ProvisionRequest) -> SharePlan:
    """What is to be done about `request`, or every reason why nothing is. Raises nothing."""
    regions = [r for r in inventory.regions if r.iset_id == request.iset_id]
    region = regions[0] if len(regions) == 1 else None
    if region is None or region.span is None:
        name = None if region is None else region.name
        return SharePlan(request, name, (), (plan(inventory, _slice(request, 1, request.size)),))
    if region.iset_id in inventory.drained:
        refused = (refusals.drained(region),)
        part = ProvisionPlan(request, Verdict.REFUSED, region.name, refusals=refused)
        return SharePlan(request, region.name, (), (part,))
    slices = slices_of(region, request)
    if len({number for number, _ in slices}) < len(slices):
        plans = [plan(inventory, _slice(request, number, None)) for number, _ in slices]
        twice = [part for part in plans if any(r.kind == "ambiguous-label" for r in part.refusals)]
        return SharePlan(request, region.name, (), tuple(twice[:1]))
    work = _Work(inventory, region, request, dict(slices))
    going = work.choose_releases()
    kept = tuple(
        plan(inventory, _slice(request, number, None)) for number, _ in slices if number not in going
    )
    changes = work.changes(going)
    numbers = _numbers(inventory, region, work, kept, changes)
    of_modules = health.notes(region) if work.slices else ()
    return SharePlan(
        request,
        region.name,
        kept,
        tuple(changes),
        numbers,
        tuple(dict.fromkeys((*of_modules, *_notes(request, inventory, numbers, kept, changes)))),
    )


@dataclass(slots=True)
class _Work:
    """One request, and its slices by number as they would be after the changes planned so far."""

    inventory: Inventory
    region: Region
    request: ProvisionRequest
    slices: dict[int, Namespace]

    @property
    def block(self) -> int:
        return self.inventory.block_size

    def weight(self, namespace: Namespace) -> int:
        """What counts against the limit: memory, or, where the limit is what others are left, all of it."""
        if self.request.all_but is not None:
            return 0 if namespace.span is None else namespace.span.size
        return memory_of(namespace, self.block).size

    @property
    def limit(self) -> int | None:
        """Bytes, by weight, that the slices may have together."""
        assert self.region.span is not None
        whole = self.region.span.size
        if self.request.all_but is not None:
            return max(0, whole - self.request.all_but)
        if self.request.per_cent is not None:
            hundredths = round(self.request.per_cent * 100)
            least = self.block if hundredths else 0
            return max(least, capacity.round_down(whole * hundredths // 10_000, self.block))
        return None if self.request.size is None else capacity.round_up(self.request.size, self.block)

    @property
    def held(self) -> int:
        return sum(self.weight(namespace) for namespace in self.slices.values())

    def condemned(self, number: int) -> bool:
        key = (slice_name(self.request.name, number), self.slices[number].label_uuid)
        return key in self.inventory.condemned

    def choose_releases(self) -> frozenset[int]:
        """The slices to give back: what was begun, and those that leave the least to be drained."""
        gone = frozenset(number for number in self.slices if self.condemned(number))
        rest = {number: namespace for number, namespace in self.slices.items() if number not in gone}
        over = 0 if self.limit is None else sum(map(self.weight, rest.values())) - self.limit
        return gone | (_least(rest, self.weight, over) if over > 0 else frozenset())

    def changes(self, going: frozenset[int]) -> list[ProvisionPlan]:
        """Slices to be given back and to be made, in order."""
        parts: list[ProvisionPlan] = []
        # those in which nothing can be in use go first: they make room
        waiting = sorted(going, key=lambda number: (_online(self.slices[number]) > 0, -number))
        while waiting:
            if _online(self.slices[waiting[0]]) and (first := self.make_first(waiting)):
                return [*parts, *first, *map(self.release, waiting)]
            parts.append(self.release(waiting.pop(0)))
        if all(part.verdict is Verdict.READY for part in parts):
            parts += self.fill()
        return parts

    def make_first(self, going: list[int]) -> list[ProvisionPlan]:
        """The slices that are to replace `going`, when there is room to make them before: then what is in
        use has somewhere to go. None when there is not, or nothing is to replace them."""
        staying = sum(self.weight(n) for number, n in self.slices.items() if number not in going)
        missing = 0 if self.limit is None else self.limit - staying
        ahead = _Work(self.inventory, self.region, self.request, dict(self.slices))
        made = ahead.grow(missing) if missing >= self.block else []
        left = missing - (ahead.held - self.held)
        if not made or left >= self.block or any(part.verdict is Verdict.REFUSED for part in made):
            return []
        self.inventory, self.region, self.slices = ahead.inventory, ahead.region, ahead.slices
        return made

    def fill(self) -> list[ProvisionPlan]:
        """The slices that are missing, or why they cannot be had."""
        if self.limit is None:
            return [] if self.slices else self.grow(None) or [self.refuse(None)]
        missing = self.limit - self.held
        before = (self.inventory, self.region, dict(self.slices))
        made = self.grow(missing) if missing >= self.block else []
        if any(part.verdict is Verdict.REFUSED for part in made):
            return made
        left = self.limit - self.held
        exact = self.request.size is not None
        if not self.limit and not self.slices and self.unsettled():
            return [self.refuse(missing)]
        if left >= self.block and len(self.slices) >= MOST_SLICES and self.piece(left) is not None:
            self.inventory, self.region, self.slices = before
            return [self.too_many()]
        if left > self.block * len(self.slices) if exact else (left >= self.block and not self.slices):
            self.inventory, self.region, self.slices = before
            return [self.refuse(missing)]
        return made

    def unsettled(self) -> bool:
        """Whether something is in the region that no namespace shows: then nobody knows that all is gone."""
        found = refusals.of_layout(self.region, capacity.free_extents(self.region))
        return any(refusal.kind == "not-settled" for refusal in found)

    def release(self, number: int) -> ProvisionPlan:
        namespace = self.slices.pop(number)
        part = plan_release(self.inventory, _slice(self.request, number, None), self.region, namespace)
        self.inventory, self.region = without(self.inventory, self.region, namespace)
        return part

    def grow(self, missing: int | None) -> list[ProvisionPlan]:
        """Make slices until `missing` bytes, by weight, are there, or nothing is left to make them of; None
        for one, as large as may be."""
        parts: list[ProvisionPlan] = []
        while (missing is None or missing >= self.block) and len(self.slices) < MOST_SLICES:
            piece = self.piece(missing)
            if piece is None:
                break
            number = self.number()
            part = plan(self.inventory, _slice(self.request, number, piece.memory.size))
            parts.append(part)
            if part.verdict is Verdict.REFUSED:
                break
            label = LABEL_PREFIX + slice_name(self.request.name, number)
            made = Namespace("", None, label, "devdax", True, piece.namespace)
            self.slices[number] = made
            self.inventory, self.region = with_made(self.inventory, self.region, made, piece.memory.size)
            if missing is None:
                break
            missing -= self.weight(made)
        return parts

    def piece(self, missing: int | None) -> capacity.Slice | None:
        """The next slice to make."""
        extents = capacity.free_extents(self.region)
        align = math.lcm(self.region.align, NAMESPACE_ALIGNMENT)

        def choose(wanted: int | None) -> capacity.Slice | None:
            return capacity.choose_slice(extents, wanted, self.block, align)

        wanted = missing
        while True:
            found = choose(wanted)
            if found is None or (wanted is not None and found.memory.size < wanted):
                found = choose(None)
                if found is not None:
                    found = choose(found.memory.size)
            if found is None or missing is None or self.request.all_but is None:
                return found
            if found.namespace.size <= missing:
                return found
            # the namespace is larger than its memory, and must not take from what is left to others
            wanted = found.memory.size - self.block
            if wanted <= 0:
                return None

    def number(self) -> int:
        """Of the next slice: the one that was begun and has no namespace yet, or the first that is free."""
        # one more than there are: a plan that says that nothing is free has a number too
        most = max(MOST_SLICES, len(self.slices)) + 1
        free = [number for number in range(1, most + 1) if number not in self.slices]
        begun = {name for name, _ in self.inventory.unfinished}
        if self.region.half_made:
            return next((n for n in free if slice_name(self.request.name, n) in begun), free[0])
        return free[0]

    def refuse(self, missing: int | None) -> ProvisionPlan:
        """A plan that says that there is not enough."""
        region = self.region
        request = _slice(self.request, self.number(), missing)
        extents = capacity.free_extents(region)
        found = refusals.of_region(self.inventory, region, region.target_node)
        found += health.of_modules(region)
        found += refusals.of_label(self.inventory, request)
        found += refusals.of_layout(region, extents) or [
            refusals.no_room(self.inventory, request, region, extents)
        ]
        return ProvisionPlan(
            request, Verdict.REFUSED, region.name, target_node=region.target_node, refusals=tuple(found)
        )

    def too_many(self) -> ProvisionPlan:
        """A plan that says that there are too many slices to make one more."""
        name, region = self.request.name, self.region
        memory = sum(memory_of(namespace, self.block).size for namespace in self.slices.values())
        words = (
            f"{name} has {len(self.slices)} slices in {region.name}, {format_size(memory)} of memory, and"
            f" {MOST_SLICES} are the most: `tierctl provision set {name} none` gives them back, then what is"
            " asked for can be made in fewer; or ask for what they hold"
        )
        refusal = refusals.Refusal("too-many-slices", words)
        node = region.target_node
        return ProvisionPlan(
            self.request, Verdict.REFUSED, region.name, target_node=node, refusals=(refusal,)
        )


def _slice(request: ProvisionRequest, number: int, size: int | None) -> ProvisionRequest:
    """The request for one slice."""
    name = slice_name(request.name, number)
    return ProvisionRequest(name, request.iset_id, size, request.mode, force_ratio=request.force_ratio)


def _online(namespace: Namespace) -> int:
    """Blocks that must be drained before it can go."""
    return 0 if namespace.dax is None else sum(block.online for block in namespace.dax.blocks)


def _least(slices: dict[int, Namespace], weight: Callable[[Namespace], int], over: int) -> frozenset[int]:
    """Slices of at least `over` bytes together, and no more than need be."""
    numbers = sorted(slices, reverse=True)
    if len(numbers) > _MOST_COMBINED:
        found: list[int] = []
        for number in numbers:
            if sum(weight(slices[n]) for n in found) < over:
                found.append(number)
        return frozenset(found)
    best: tuple[int, ...] = tuple(numbers)

    def cost(chosen: tuple[int, ...]) -> tuple[int, int, int]:
        return sum(weight(slices[n]) for n in chosen), sum(_online(slices[n]) for n in chosen), len(chosen)

    for count in range(1, len(numbers)):
        for chosen in itertools.combinations(numbers, count):
            if cost(chosen)[0] >= over and cost(chosen) < cost(best):
                best = chosen
    return frozenset(best)


def _numbers(
    inventory: Inventory,
    region: Region,
    work: _Work,
    kept: tuple[ProvisionPlan, ...],
    changes: list[ProvisionPlan],
) -> ShareNumbers:
    assert region.span is not None
    block = inventory.block_size
    before = [namespace for _, namespace in slices_of(region, work.request)]
    spans = [(n.span or Span(0, 0), memory_of(n, block)) for n in before]
    after = [(n.span or Span(0, 0), memory_of(n, block)) for n in work.slices.values()]
    memory = sum(memory.size for _, memory in after)
    return ShareNumbers(
        region=region.span.size,
        asked=None if work.request.all_but is not None else work.limit,
        online=sum(map(_online, before)) * block,
        memory=memory,
        blocks=memory // block,
        lost=sum(numbers_of(inventory, span, whole, 0).lost for span, whole in after),
        lost_now=sum(numbers_of(inventory, span, whole, 0).lost for span, whole in spans),
        rest=region.span.size - sum(span.size for span, _ in after),
        page_structures=sum(p.numbers.page_structures for p in (*kept, *changes) if p.numbers is not None),
        drained=sum(_online(part.namespace) for part in changes if part.namespace is not None) * block,
    )


def _notes(
    request: ProvisionRequest,
    inventory: Inventory,
    numbers: ShareNumbers,
    kept: tuple[ProvisionPlan, ...],
    changes: list[ProvisionPlan],
) -> tuple[str, ...]:
    notes = [note for part in kept for note in part.notes]
    asked = numbers.asked
    refused = any(part.verdict is Verdict.REFUSED for part in changes)
    if asked is not None and numbers.memory < asked and not refused:
        words = format_size(asked) if request.per_cent is None else format_share(request.per_cent)
        notes.append(
            f"{words} is asked for; what is free gives {format_size(numbers.memory)} in whole blocks of"
            f" {format_size(inventory.block_size)}"
        )
    return (*notes, *room.much_behind_dram(inventory, numbers.memory - numbers.online))
