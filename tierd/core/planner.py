"""What to move, and why: room first, then the hottest pages up, and swaps only with a clear gain.

Pure. One call a round: `plan(Observation) -> Plan`. `tierctl plan` and the daemon share it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from tierd.core.heat import HotPages
from tierd.core.model import PAGE_SIZE, Node

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
"""Bytes of the slow node that demotion leaves free."""
IDLE_WITHOUT_SWAP: Final = 60.0
"""Seconds. With room in DRAM a page is worth the trip when it is used at least once in this time."""


@dataclass(frozen=True, slots=True)
class ColdStock:
    """Pages of one cgroup on one DRAM node that have not been touched for at least `idle` seconds.

    memcg, sequence: what the kernel needs to demote them (kernel/generations.py). pages: base pages.
    rate: uses of such a page expected a second.
    """

    cgroup: str
    memcg: int
    node: int
    sequence: int
    idle: float
    pages: int
    rate: float


@dataclass(frozen=True, slots=True)
class Observation:
    """What one round saw. hot: pages on slow nodes, hottest first. budget: base pages that may move now.
    dram, slow: nodes as they are now. floor: extra bytes of each DRAM node that the policy keeps free.
    coldest: uses a second expected of the coldest pages of DRAM, as far as is known, whether or not some are
    left in `cold`. typical: accesses a second of a cold page of the slow nodes, 0 when not known. gain:
    times as often that a page must be used as one that goes down for it."""

    hot: HotPages
    cold: tuple[ColdStock, ...]
    dram: tuple[Node, ...]
    slow: tuple[Node, ...]
    budget: int
    floor: int = 0
    coldest: float = 1 / IDLE_WITHOUT_SWAP
    typical: float = 0.0
    gain: float = SWAP_GAIN


@dataclass(frozen=True, slots=True)
class Demotion:
    """Demote `pages` of the oldest pages of a stock."""

    stock: ColdStock
    pages: int
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A round's work. promote: how many of `Observation.hot`, from its start, and to which node.

    wanted: hot pages worth moving, whether or not there is room or budget for them now. held: why less than
    that is done, empty when nothing is held back. limited: whether it is the budget that holds them.
    urgent: those of the wanted that are used far more often than what is coldest in DRAM.
    """

    demotions: tuple[Demotion, ...] = ()
    promote: int = 0
    promote_to: int | None = None
    wanted: int = 0
    urgent: int = 0
    reason: str = ""
    held: str = ""
    limited: bool = False
    demote_pages: int = field(default=0)


def floor_bytes(node: Node, extra: int) -> int:
    """Free bytes below which nothing is promoted into `node`."""
    return FLOOR_WATERMARKS * node.high_watermark + FLOOR_EXTRA + extra


def room_pages(nodes: tuple[Node, ...], extra: int) -> int:
    """Base pages that fit into `nodes` above their floors; negative when they are below."""
    return sum((node.free - floor_bytes(node, extra)) // PAGE_SIZE for node in nodes)


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
    """The best use of this round's budget."""
    if not len(seen.hot) or not seen.dram:
        return Plan(reason="no hot page is known on a slow node")
    rates = seen.hot.rate
    target = max(seen.dram, key=lambda node: node.free - node.high_watermark)
    balance = room_pages((target,), seen.floor)
    room, shortfall = max(0, balance), max(0, -balance)
    slow_room = sum(max(0, node.free - SLOW_RESERVE) // PAGE_SIZE for node in seen.slow)
    # what is cold on another node makes no room on this one
    stocks = sorted(
        (stock for stock in seen.cold if stock.node == target.number),
        key=lambda stock: (stock.rate, -stock.idle),
    )

    # page i goes up into free room, or against the (i - room)-th coldest page of DRAM
    worth = np.zeros(len(rates))
    worth[:room] = rates[:room] * seen.gain * IDLE_WITHOUT_SWAP
    filled = room
    available = 0
    for stock in stocks:
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
    worthwhile = len(rates) if gains.all() else int(np.argmin(gains))
    # all that would be worth moving if cold pages were known: the measure of how wrong the picture is
    coldest = rate_in_dram(seen.coldest, seen.typical)
    clearly = int(np.count_nonzero(rates >= seen.gain * coldest))
    wanted = max(clearly, min(room, worthwhile))
    urgent = int(np.count_nonzero(rates >= URGENT * coldest))

    # each swap moves two pages, and what DRAM is short of its floor is moved first
    promote = min(worthwhile, seen.budget, max(room, (seen.budget + balance) // 2))
    demotions = []
    to_demote = min(max(0, promote - balance), seen.budget - promote) if worthwhile else 0
    for stock in stocks:
        pages = min(stock.pages, to_demote)
        if pages > 0:
            reason = f"not used for {stock.idle:.1f} s, and such pages are {stock.rate:.2g} times a second"
            demotions.append(Demotion(stock, pages, reason))
            to_demote -= pages
    held = ""
    if promote < wanted:
        if promote == worthwhile:
            held = "DRAM is at its floor and holds nothing that is clearly colder"
        else:
            held = "the bandwidth of this round is spent"
    least = float(rates[promote - 1]) if promote else 0.0
    return Plan(
        demotions=tuple(demotions),
        promote=promote,
        promote_to=target.number,
        wanted=wanted,
        urgent=urgent,
        reason=f"used {least:.2g} to {float(rates[0]):.2g} times a second" if promote else "",
        held=held,
        limited=promote < worthwhile,
        demote_pages=sum(d.pages for d in demotions),
    )
