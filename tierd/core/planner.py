"""What to move, and why: room first, then the hottest pages up, and swaps only with a clear gain.

Pure. One call a round: `plan(Observation) -> Plan`. `tierctl plan` and the daemon share it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from tierd.core.heat import Floats, HotPages
from tierd.core.model import PAGE_SIZE, Node

Places = npt.NDArray[np.int64]

SWAP_GAIN: Final = 2.0
"""A page goes up against one that goes down only when it is expected to be used this many times as often. At
1 the two may well be equally good and every move is a coin toss."""
URGENT: Final = 3.0
"""Times as often as the coldest of DRAM that pages are used which show that the picture is wrong. Those of
less gain move as well while it is looked at hard, but neither looking nor moving is worth it for them
alone."""
AGREEMENT: Final = 3.0
"""Times by which a rate of use in DRAM and one on slow nodes may differ although they are the same: the one
is counted by walks of page tables, the other timed by faults, at another time and at their own cost."""
FLOOR_WATERMARKS: Final = 2
FLOOR_EXTRA: Final = 32 << 20
"""Bytes. Promotion into a node nearer to its watermarks than 2 x high + 32 MiB stalls the machine for
seconds (measured on 6.12: calls of 4 MiB took up to 20 s below, 0.06 s at worst above)."""
SLOW_RESERVE: Final = 32 << 20
"""Bytes above a slow node's high watermark that demotion leaves free. At the watermark kswapd comes to rest;
below, it would drop or swap out what lies there while more goes down."""
IDLE_WITHOUT_SWAP: Final = 60.0
"""Seconds. With room in DRAM a page is worth the trip when it is used at least once in this time."""
FAR: Final = " near other DRAM, which can take no more; this is farther, and still faster than a slow node"
_SHORT: Final = 1 / 8
"""A DRAM node is short of room when at most this part of it is free above its floor."""


@dataclass(frozen=True, slots=True)
class ColdStock:
    """Pages of one cgroup on one DRAM node that have not been touched for at least `idle` seconds.

    memcg, sequence: what the kernel needs to demote them (kernel/generations.py). pages: base pages.
    rate: uses of such a page expected a second. file: whether they are page cache; what reads it through a
    descriptor leaves no trace, so that `idle` and `rate` are what the kernel would go by.
    """

    cgroup: str
    memcg: int
    node: int
    sequence: int
    idle: float
    pages: int
    rate: float
    file: bool = False


@dataclass(frozen=True, slots=True)
class Observation:
    """What one round saw. hot: pages on slow nodes, hottest first. budget: base pages that may move now.
    dram, slow: nodes as they are now. floor: extra bytes of each DRAM node that the policy keeps free.
    coldest: uses a second expected of the coldest pages of DRAM but for a few, as far as is known, also when
    `cold` has none. typical: accesses a second of a cold page of the slow nodes, 0 when not known.
    settled: whether the picture is right, and only what stands out is worth moving."""

    hot: HotPages
    cold: tuple[ColdStock, ...]
    dram: tuple[Node, ...]
    slow: tuple[Node, ...]
    budget: int
    floor: int = 0
    coldest: float = 1 / IDLE_WITHOUT_SWAP
    typical: float = 0.0
    settled: bool = False
    cut: bool = False
    barred: Mapping[int, Collection[int]] = field(default_factory=dict)

    def may(self, node: int) -> npt.NDArray[np.bool_]:
        """Which of the hot pages may go to the DRAM node."""
        may: npt.NDArray[np.bool_] = ~np.isin(self.hot.slot, list(self.barred.get(node, ())))
        return may

    @property
    def gain(self) -> float:
        """Times as often that a page must be used as one that goes down for it."""
        return URGENT if self.settled else SWAP_GAIN


@dataclass(frozen=True, slots=True)
class Demotion:
    """Demote `pages` of the oldest pages of a stock.

    Which slow node they go to is the kernel's choice: the nearest of the next tier (next_demotion_node in
    mm/memory-tiers.c), and others when that is full. So each socket's pages go to the PMEM near it, and
    what all slow nodes have free is what may go down. enforced: whether they go down in any case, not only
    when what is to come up needs the room.
    """

    stock: ColdStock
    pages: int
    reason: str
    enforced: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Push:
    """Send pages of one process down, whatever their use. service_class: whose they are. slot: of the
    process. pages: their numbers. dram: the node they lie on. slow: the one they go to."""

    service_class: str
    slot: int
    pages: npt.NDArray[np.uint64]
    dram: int
    slow: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Promotion:
    """Promote pages to one node. which: their places in `Observation.hot`, hottest first."""

    node: int
    which: Places
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A round's work. promote, demote_pages: base pages of all promotions, and of all demotions and pushes.

    wanted: hot pages worth moving, whether or not there is room or budget for them now. held: why less than
    that is done, empty when nothing is held back. limited: whether it is the budget that holds them.
    urgent: those of the wanted that are used far more often than what is coldest in DRAM. more: whether
    there are more of them than were considered. unmet: pages that a class has too much, and that do not go
    down for want of cold ones. reason: why nothing could be planned, empty when something
    could.
    """

    demotions: tuple[Demotion, ...] = ()
    promotions: tuple[Promotion, ...] = ()
    promote: int = 0
    wanted: int = 0
    urgent: int = 0
    more: bool = False
    unmet: int = 0
    reason: str = ""
    held: str = ""
    limited: bool = False
    demote_pages: int = field(default=0)
    pushes: tuple[Push, ...] = ()


@dataclass(slots=True)
class _Target:
    """A DRAM node while a plan is made. balance: base pages of room above its floor, negative below. stocks:
    the node's own, coldest first. pages: places in `Observation.hot` of what may go up to it, hottest first,
    of which the first `worthwhile` are worth it. least: uses a second that make a page worth the trip into
    the room."""

    node: int
    balance: int
    least: float
    stocks: list[ColdStock]
    pages: Places
    worthwhile: int = 0

    @property
    def demote(self) -> int:
        """Pages to demote for all that is worthwhile; what the node is short of its floor comes first."""
        return max(0, self.worthwhile - self.balance) if self.worthwhile else 0

    @property
    def moves(self) -> int:
        return self.worthwhile + self.demote


def floor_bytes(node: Node, extra: int) -> int:
    """Free bytes below which nothing is promoted into `node`."""
    return FLOOR_WATERMARKS * node.high_watermark + FLOOR_EXTRA + extra


def balance_pages(node: Node, extra: int) -> int:
    """Base pages that fit into `node` above its floor; negative when it is below."""
    return (node.free - floor_bytes(node, extra)) // PAGE_SIZE


def room_pages(nodes: tuple[Node, ...], extra: int) -> int:
    """Base pages that fit into `nodes` above their floors. What one is short of its floor takes nothing from
    the room of another."""
    return sum(max(0, balance_pages(node, extra)) for node in nodes)


def slow_floor_bytes(node: Node) -> int:
    """Free bytes below which nothing goes down to the slow `node`."""
    return node.high_watermark + SLOW_RESERVE


def slow_room_pages(nodes: tuple[Node, ...]) -> int:
    """Base pages that may go down to the slow `nodes`."""
    return sum(max(0, node.free - slow_floor_bytes(node)) // PAGE_SIZE for node in nodes)


def short_of_room(nodes: tuple[Node, ...], extra: int) -> frozenset[int]:
    """The numbers of those DRAM nodes in which little is free above the floor."""
    return frozenset(
        node.number for node in nodes if balance_pages(node, extra) * PAGE_SIZE <= node.total * _SHORT
    )


def rate_in_dram(measured: float, typical: float) -> float:
    """How often pages of DRAM are used that were `measured` so many times a second, where a cold page
    of the slow nodes is used `typical` times: as often as those, if that may be."""
    return min(max(measured, typical), AGREEMENT * measured)


def least_rate(nodes: tuple[Node, ...], extra: int, rate: float) -> float:
    """Accesses a second below which no page need be looked at: with room in DRAM one in IDLE_WITHOUT_SWAP
    seconds is enough, without it `rate`, that which is worth a swap."""
    least = 1 / IDLE_WITHOUT_SWAP
    if room_pages(nodes, extra) > 0:
        return least
    return max(least, rate)


def plan(seen: Observation) -> Plan:
    """The best use of this round's budget.

    A page goes up to the DRAM near those who use it, into room or against colder pages of that node. What
    finds neither there goes into room that other DRAM has left: farther, but faster than a slow node.
    """
    targets = _targets(seen) if len(seen.hot) and seen.dram else []
    if not any(len(target.pages) for target in targets):
        return Plan(reason="no hot page that may go to DRAM is known on a slow node")
    rates = seen.hot.rate
    slow_room = slow_room_pages(seen.slow)
    for target in targets:
        target.worthwhile = _worthwhile(rates[target.pages], target, seen, slow_room)
        slow_room -= target.demote
    reachable = np.sort(np.concatenate([target.pages for target in targets]))
    if len(targets) > 1:
        _fill_far_room(targets, seen)

    worthwhile = sum(target.worthwhile for target in targets)
    # all that would be worth moving if cold pages were known: the measure of how wrong the picture is
    coldest = rate_in_dram(seen.coldest, seen.typical)
    clearly = int(np.count_nonzero(rates[reachable] >= seen.gain * coldest))
    wanted = max(clearly, min(room_pages(seen.dram, seen.floor), worthwhile))
    urgent = int(np.count_nonzero(rates[reachable] >= URGENT * coldest))

    demotions: list[Demotion] = []
    promotions: list[Promotion] = []
    moves = sum(target.moves for target in targets)
    for target in targets:
        if not target.moves:
            continue
        budget = seen.budget * target.moves // moves
        # each swap moves two pages, and what DRAM is short of its floor is moved first
        promote = min(target.worthwhile, budget, max(0, target.balance, (budget + target.balance) // 2))
        demotions += _demotions(target, min(max(0, promote - target.balance), budget - promote))
        promotions += _promotions(target.node, target.pages[:promote], seen)
    promote = sum(len(step.which) for step in promotions)
    held = ""
    if promote < wanted:
        if promote == worthwhile:
            where = "DRAM is" if len(targets) == 1 else "DRAM near those who use them is"
            held = f"{where} at its floor and holds nothing that is clearly colder"
        else:
            held = "the bandwidth of this round is spent"
    return Plan(
        demotions=tuple(demotions),
        promotions=tuple(promotions),
        promote=promote,
        wanted=wanted,
        urgent=urgent,
        more=seen.cut and urgent == len(reachable),
        held=held,
        limited=promote < worthwhile,
        demote_pages=sum(step.pages for step in demotions),
    )


def _targets(seen: Observation) -> list[_Target]:
    """Every DRAM node, with its own stocks and the pages that are used near it. What is used nobody knows
    where, or may not be near its users, goes to the emptiest where it may be."""
    if len(seen.dram) == 1 and not seen.barred:
        pages = [np.arange(len(seen.hot))]
    else:
        fullest_first = sorted(reversed(seen.dram), key=lambda node: node.free - node.high_watermark)
        goes = np.full(len(seen.hot), -1)
        for node in fullest_first:
            goes[seen.may(node.number)] = node.number
        for node in seen.dram:
            goes[(seen.hot.near == node.number) & seen.may(node.number)] = node.number
        pages = [np.flatnonzero(goes == node.number) for node in seen.dram]
    short, least = short_of_room(seen.dram, seen.floor), 1 / IDLE_WITHOUT_SWAP
    return [
        _Target(
            node.number,
            balance_pages(node, seen.floor),
            # a little room comes and goes, and what is as cold as all else is not to go up and down with it
            max(least, seen.gain * seen.typical) if seen.settled and node.number in short else least,
            # what is cold on another node makes no room on this one
            sorted(
                (stock for stock in seen.cold if stock.node == node.number),
                key=lambda stock: (stock.rate, -stock.idle),
            ),
            used,
        )
        for node, used in zip(seen.dram, pages, strict=True)
    ]


def _worthwhile(rates: Floats, target: _Target, seen: Observation, slow_room: int) -> int:
    """How many pages of these falling rates are worth moving to the node while `slow_room` pages may go
    down."""
    # page i goes up into free room, or against the (i - room)-th coldest page of DRAM
    room, shortfall = max(0, target.balance), max(0, -target.balance)
    worth = np.zeros(len(rates))
    worth[:room] = rates[:room] / target.least * seen.gain
    filled = room
    available = 0
    for stock in target.stocks:
        take = min(stock.pages, slow_room - available)
        # the coldest pages of all only bring DRAM back to its floor
        available += take
        lifted = min(take, shortfall)
        shortfall -= lifted
        take -= lifted
        swapped = slice(filled, filled + take)
        worth[swapped] = rates[swapped] / rate_in_dram(stock.rate, seen.typical)
        filled += take
    gains = worth >= seen.gain
    return len(rates) if gains.all() else int(np.argmin(gains))


def _fill_far_room(targets: list[_Target], seen: Observation) -> None:
    """Give the room that is left to the hottest pages that found no place near those who use them."""
    left = np.sort(np.concatenate([target.pages[target.worthwhile :] for target in targets]))
    for target in sorted(targets, key=lambda target: target.worthwhile - target.balance):
        fitting = left[seen.may(target.node)[left] & (seen.hot.rate[left] >= target.least)]
        found = fitting[: max(0, target.balance - target.worthwhile)]
        left = np.setdiff1d(left, found, assume_unique=True)
        target.pages = np.sort(np.concatenate([target.pages[: target.worthwhile], found]))
        target.worthwhile = len(target.pages)


def _demotions(target: _Target, pages: int) -> list[Demotion]:
    steps = []
    for stock in target.stocks:
        count = min(stock.pages, pages)
        if count > 0:
            reason = f"not used for {stock.idle:.1f} s, and such pages are {stock.rate:.2g} times a second"
            if stock.file:
                reason = (
                    f"page cache, not used in any mapping for {stock.idle:.1f} s, and there is much of it"
                )
            steps.append(Demotion(stock, count, reason))
            pages -= count
    return steps


def _promotions(node: int, which: Places, seen: Observation) -> list[Promotion]:
    """One for pages that are used near the node, or nobody knows where, and one for those that come from
    elsewhere."""
    groups = [(which, "")]
    if others := [other.number for other in seen.dram if other.number != node]:
        far = np.isin(seen.hot.near[which], others)
        groups = [(which[~far], ""), (which[far], FAR)]
    steps = []
    for pages, why in groups:
        if len(pages):
            least, most = float(seen.hot.rate[pages[-1]]), float(seen.hot.rate[pages[0]])
            reason = f"used {least:.2g} to {most:.2g} times a second{why}"
            steps.append(Promotion(node, pages, reason))
    return steps
