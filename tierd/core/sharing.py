"""A round's plan where the policy has classes: who gives DRAM up, who is owed some, and who has the rest.

Pure. Each step is a plan of core/planner.py over a part of what was seen. In turn:

1. A class that has more DRAM than it may have gives its coldest pages up, also when DRAM is free.
2. A class that has less than it is promised is served, in the order of the promises, whatever its pages are
   used, at the cost of all who have more than theirs.
3. What is left is lent by priority: within one, pages compete by their rates, and all of it comes before any
   use that a lower one has for it.
4. A class that can have no more, or only what nobody may take from it, still swaps with itself.

Where a class has had too much, or too little, for long, what is to go down goes whatever its use: where all
of a class is used all the time, the kernel knows no cold pages of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from tierd.core.heat import HotPages
from tierd.core.holdings import Sharing, Spare
from tierd.core.model import PAGE_SIZE, Node
from tierd.core.planner import (
    ColdStock,
    Demotion,
    Observation,
    Places,
    Plan,
    Promotion,
    Push,
    balance_pages,
    floor_bytes,
    plan,
    room_pages,
    slow_room_pages,
)

UNCONTESTED: Final = 1e-12
"""Uses a second that a page counts for where its class has no say: any use of another is more."""


def plan_classes(seen: Observation, sharing: Sharing, spare: Spare | None = None) -> Plan:
    """The best use of this round's budget within what the classes may have. spare: what may go down whatever
    its use, for what is overdue. Called by the engine, where the policy has classes."""
    return _Round(seen, sharing, Spare.none() if spare is None else spare).plan()


@dataclass(slots=True)
class _Round:
    """A plan in the making: what the steps before have left to the next."""

    seen: Observation
    sharing: Sharing
    spare: Spare
    stocks: dict[ColdStock, int] = field(init=False)
    gained: Counter[int] = field(default_factory=Counter)
    given: Counter[int] = field(default_factory=Counter)
    room: Counter[int] = field(default_factory=Counter)
    unmet: int = 0
    demotions: list[Demotion] = field(default_factory=list)
    pushes: list[Push] = field(default_factory=list)
    promotions: list[Promotion] = field(default_factory=list)
    steps: list[Plan] = field(default_factory=list)
    classes: npt.NDArray[np.int64] = field(init=False)
    spare_classes: npt.NDArray[np.int64] = field(init=False)
    waiting: npt.NDArray[np.bool_] = field(init=False)
    wanted: npt.NDArray[np.bool_] = field(init=False)
    urgent: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.stocks = {stock: stock.pages for stock in self.seen.cold}
        self.classes = self.sharing.classes_of(self.seen.hot.slot)
        self.spare_classes = self.sharing.classes_of(self.spare.slot)
        self.waiting = self.classes >= 0
        self.wanted = np.zeros(len(self.classes), dtype=np.bool_)
        self.urgent = np.zeros(len(self.classes), dtype=np.bool_)

    def plan(self) -> Plan:
        everybody = range(len(self.sharing.holdings))
        for number in everybody:
            self._give_up(number)
        for number in everybody:
            if self._lack(number):
                self._serve(number)
        priorities = {holding.service_class.priority for holding in self.sharing.holdings}
        for priority in sorted(priorities, reverse=True):
            self._lend(priority)
        for number in everybody:
            self._swap_within(number)
        return self._joined()

    # What the steps so far have left

    @property
    def budget(self) -> int:
        return max(0, self.seen.budget - sum(self.gained.values()) - sum(self.given.values()))

    def _allowed(self, number: int) -> int:
        """Pages of the class that may still be moved."""
        return max(0, self.sharing.holdings[number].budget - self.gained[number] - self.given[number])

    def _has(self, number: int) -> int:
        return self.sharing.holdings[number].dram + self.gained[number] - self.given[number]

    def _lack(self, number: int) -> int:
        return max(0, self.sharing.holdings[number].lack - self.gained[number])

    def _surplus(self, number: int) -> int:
        """What others may take of it."""
        return max(0, self._has(number) - self.sharing.holdings[number].least)

    def _headroom(self, number: int) -> int:
        return max(0, self.sharing.holdings[number].most - self._has(number))

    def _owner(self, stock: ColdStock) -> int:
        return self.sharing.of_cgroup.get(stock.cgroup, -1)

    def _stocks_of(self, number: int, most: int) -> list[ColdStock]:
        """What is left of the class's stocks, coldest first, `most` pages at most."""
        own = [stock for stock, left in self.stocks.items() if left and self._owner(stock) == number]
        found = []
        for stock in sorted(own, key=lambda stock: (stock.rate, -stock.idle)):
            pages = min(self.stocks[stock], most)
            if pages > 0:
                found.append(replace(stock, pages=pages))
                most -= pages
        return found

    def _pages_of(self, number: int, most: int) -> Places:
        """The hottest of the class's pages that are not planned yet."""
        return np.flatnonzero(self.waiting & (self.classes == number))[: max(0, most)]

    # The steps

    def _give_up(self, number: int) -> None:
        holding = self.sharing.holdings[number]
        words = f"class {holding.service_class.name} has more DRAM than {holding.service_class.dram.words}"
        pages = min(
            holding.excess, self._allowed(number), self.budget, slow_room_pages(self._slow_as_left())
        )
        pages -= self._push(number, pages, words)
        for stock in self._stocks_of(number, pages):
            self._demote(stock, stock.pages, words, enforced=True)
            pages -= stock.pages
        self.unmet += max(0, pages)

    def _serve(self, number: int) -> None:
        """Bring the class what it lacks. What it has itself is none of what makes room for it."""
        which = self._pages_of(number, min(self._lack(number), self._allowed(number)))
        service_class = self.sharing.holdings[number].service_class
        words = f"class {service_class.name} is owed DRAM: {service_class.dram.words}"
        if self.sharing.holdings[number].overdue:
            self._push_others(number, len(which), words)
        stocks = []
        for other in range(len(self.sharing.holdings)):
            if other != number:
                # the lowest priority first, and the coldest of it; nobody's rate is a match for a promise
                rank = self.sharing.priority(other)
                found = self._stocks_of(other, min(self._surplus(other), self._allowed(other)))
                stocks += [(rank, stock.rate, stock) for stock in found]
        stocks.sort(key=lambda entry: entry[:2])
        ranked = [replace(stock, rate=float(place)) for place, (_, _, stock) in enumerate(stocks, 1)]
        self._step(which, ranked, np.full(len(which), np.inf), words=words)

    def _push_others(self, number: int, pages: int, words: str) -> None:
        """Make room for so many pages of the class, by what others have more than theirs."""
        short = pages - room_pages(
            tuple(self._as_left(node, True) for node in self.seen.dram), self.seen.floor
        )
        for other in sorted(range(len(self.sharing.holdings)), key=self.sharing.priority):
            # what goes down and what comes up for it are both of this round's budget
            short = min(short, self.budget // 2, slow_room_pages(self._slow_as_left()))
            if other != number and short > 0:
                short -= self._push(other, min(short, self._surplus(other), self._allowed(other)), words)

    def _push(self, number: int, pages: int, words: str) -> int:
        """Send so many of the class's spare pages down, as far as there are. Returns how many."""
        which = np.flatnonzero(self.spare_classes == number)[: max(0, pages)]
        self.spare_classes[which] = -1
        name = self.sharing.holdings[number].service_class.name
        ways = np.stack([self.spare.slot[which], self.spare.dram[which], self.spare.slow[which]], axis=1)
        for way in np.unique(ways, axis=0):
            chosen = self.spare.page[which[(ways == way).all(axis=1)]]
            slot, dram, slow = way.tolist()
            self.pushes.append(Push(name, slot, chosen, dram, slow, words))
            self.room[dram] += len(chosen)
        self.given[number] += len(which)
        return len(which)

    def _lend(self, priority: int) -> None:
        """The DRAM that is nobody's due, to all of one priority."""
        pages, stocks, coldest = [], list[ColdStock](), [float(np.inf)]
        for number, holding in enumerate(self.sharing.holdings):
            rank = self.sharing.priority(number)
            if rank > priority:
                continue
            found = self._stocks_of(number, min(self._surplus(number), self._allowed(number)))
            if rank < priority:
                found = [replace(stock, rate=UNCONTESTED) for stock in found]
            else:
                pages.append(self._pages_of(number, min(self._headroom(number), self._allowed(number))))
            if found or (rank == priority and self._surplus(number)):
                coldest.append(holding.coldest if rank == priority else UNCONTESTED)
            stocks += found
        which = np.sort(np.concatenate(pages)) if pages else np.empty(0, dtype=np.int64)
        self._step(which, stocks, self.seen.hot.rate[which], coldest=min(coldest))

    def _swap_within(self, number: int) -> None:
        short = (-balance_pages(self._as_left(node, True), self.seen.floor) for node in self.seen.dram)
        if sum(max(0, pages) for pages in short) > self._surplus(number):
            return  # the first pages that went down would only bring DRAM back to its floor
        which = self._pages_of(number, self._allowed(number))
        stocks = self._stocks_of(number, self._allowed(number))
        coldest = self.sharing.holdings[number].coldest
        self._step(which, stocks, self.seen.hot.rate[which], coldest=coldest, room=False)

    def _step(
        self,
        which: Places,
        stocks: Sequence[ColdStock],
        rates: npt.NDArray[np.float64],
        *,
        coldest: float = 0.0,
        room: bool = True,
        words: str = "",
    ) -> None:
        """Plan for the hot pages `which` against `stocks`. room: whether they may have what is free. words:
        why, where it is not for their rates."""
        if not len(which):
            return
        hot = self.seen.hot
        part = plan(
            replace(
                self.seen,
                hot=HotPages(hot.slot[which], hot.page[which], rates, hot.near[which]),
                cold=tuple(stocks),
                dram=tuple(self._as_left(node, room) for node in self.seen.dram),
                slow=self._slow_as_left(),
                budget=self.budget,
                coldest=coldest,
            )
        )
        self.steps.append(part)
        self.wanted[which[: part.wanted]] = True
        self.urgent[which[: part.urgent]] = True
        for demotion in part.demotions:
            self._demote(demotion.stock, demotion.pages, words or demotion.reason)
        for step in part.promotions:
            moved = which[step.which]
            self.promotions.append(Promotion(step.node, moved, words or step.reason))
            self.waiting[moved] = False
            self.gained.update(self.classes[moved].tolist())
            self.room[step.node] -= len(moved)

    def _demote(self, stock: ColdStock, pages: int, reason: str, *, enforced: bool = False) -> None:
        original = next(known for known in self.stocks if _same(known, stock))
        self.stocks[original] -= pages
        self.given[self._owner(original)] += pages
        self.room[original.node] += pages
        self.demotions.append(Demotion(original, pages, reason, enforced))

    def _as_left(self, node: Node, room: bool) -> Node:
        free = max(0, node.free + self.room[node.number] * PAGE_SIZE)
        return replace(node, free=free if room else min(free, floor_bytes(node, self.seen.floor)))

    def _slow_as_left(self) -> tuple[Node, ...]:
        """Which node took what is not known: the one with most room stands for all."""
        emptiest = max((node.free for node in self.seen.slow), default=0)
        taken = sum(self.room.values()) * PAGE_SIZE
        return tuple(
            replace(node, free=max(0, node.free - taken)) if node.free == emptiest else node
            for node in self.seen.slow
        )

    def _joined(self) -> Plan:
        promote = sum(len(step.which) for step in self.promotions)
        wanted = max(promote, int(self.wanted.sum()))
        reason = ""
        if not self.promotions and not self.demotions and not self.pushes:
            reason = _first(step.reason for step in self.steps) or "no class has a page that may go up"
        return Plan(
            demotions=tuple(self.demotions),
            pushes=tuple(self.pushes),
            promotions=tuple(self.promotions),
            promote=promote,
            wanted=wanted,
            urgent=int(self.urgent.sum()),
            more=any(step.more for step in self.steps),
            unmet=self.unmet,
            reason=reason,
            held=_first(step.held for step in self.steps) if promote < wanted else "",
            limited=any(step.limited for step in self.steps),
            demote_pages=sum(step.pages for step in self.demotions)
            + sum(len(step.pages) for step in self.pushes),
        )


def _same(one: ColdStock, other: ColdStock) -> bool:
    return (one.memcg, one.node, one.sequence, one.file) == (
        other.memcg,
        other.node,
        other.sequence,
        other.file,
    )


def _first(texts: Iterable[str]) -> str:
    return next(filter(None, texts), "")
