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
"""A page goes up against one that goes down only when it is expected to be used this often in the time for
which the other has not been used at all. At 1 the two may well be equally good and every move is a coin
toss; at 2, a page as hot as the one that comes up would be idle for so long with probability exp(-2)."""
FLOOR_WATERMARKS: Final = 2
FLOOR_EXTRA: Final = 32 << 20
"""Bytes. Promotion into a node nearer to its watermarks than 2 x high + 32 MiB stalls the machine for
seconds (measured on 6.12: calls of 4 MiB took up to 20 s below, 0.06 s at worst above)."""
SLOW_RESERVE: Final = 32 << 20
"""Bytes of the slow node that demotion leaves free."""
IDLE_COUNTED: Final = 10.0
"""Seconds of idleness that count in a swap at most. Among cold pages the longest idle are the unlucky ones,
and those of the slow node that were seen early the lucky ones: swapping the two gains nothing."""
IDLE_WITHOUT_SWAP: Final = 60.0
"""Seconds. With room in DRAM a page is worth the trip when it is used at least once in this time."""


@dataclass(frozen=True, slots=True)
class ColdStock:
    """Pages of one cgroup on one DRAM node that have not been touched for at least `idle` seconds.

    memcg, sequence: what the kernel needs to demote them (kernel/generations.py). pages: base pages.
    """

    cgroup: str
    memcg: int
    node: int
    sequence: int
    idle: float
    pages: int


@dataclass(frozen=True, slots=True)
class Observation:
    """What one round saw. hot: pages on slow nodes, hottest first. budget: base pages that may move now.
    dram, slow: nodes as they are now. floor: extra bytes of each DRAM node that the policy keeps free."""

    hot: HotPages
    cold: tuple[ColdStock, ...]
    dram: tuple[Node, ...]
    slow: tuple[Node, ...]
    budget: int
    floor: int = 0


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
    that is done, empty when nothing is held back.
    """

    demotions: tuple[Demotion, ...] = ()
    promote: int = 0
    promote_to: int | None = None
    wanted: int = 0
    reason: str = ""
    held: str = ""
    demote_pages: int = field(default=0)


def floor_bytes(node: Node, extra: int) -> int:
    """Free bytes below which nothing is promoted into `node`."""
    return FLOOR_WATERMARKS * node.high_watermark + FLOOR_EXTRA + extra


def room_pages(nodes: tuple[Node, ...], extra: int) -> int:
    """Base pages that fit into `nodes` above their floors; negative when they are below."""
    return sum((node.free - floor_bytes(node, extra)) // PAGE_SIZE for node in nodes)


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
        (stock for stock in seen.cold if stock.node == target.number), key=lambda stock: -stock.idle
    )

    # page i goes up into free room, or against the (i - room)-th coldest page of DRAM
    longest_idle = stocks[0].idle if stocks else IDLE_WITHOUT_SWAP
    worth = np.zeros(len(rates))
    # room costs nobody anything, so it is worth at least as much as the best swap
    worth[:room] = rates[:room] * SWAP_GAIN * max(IDLE_WITHOUT_SWAP, longest_idle)
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
        worth[swapped] = rates[swapped] * min(stock.idle, IDLE_COUNTED)
        filled += take
    gains = worth >= SWAP_GAIN
    worthwhile = len(rates) if gains.all() else int(np.argmin(gains))
    # all that would be worth moving if cold pages were known: the measure of how wrong the picture is
    counted = min(longest_idle, IDLE_COUNTED)
    wanted = int(np.count_nonzero(rates * counted >= SWAP_GAIN))

    # each swap moves two pages, and what DRAM is short of its floor is moved first
    promote = min(worthwhile, seen.budget, max(room, (seen.budget + balance) // 2))
    demotions = []
    to_demote = min(max(0, promote - balance), seen.budget - promote) if worthwhile else 0
    for stock in stocks:
        pages = min(stock.pages, to_demote)
        if pages > 0:
            demotions.append(Demotion(stock, pages, f"not used for {stock.idle:.1f} s"))
            to_demote -= pages
    held = ""
    if promote < wanted:
        if promote == worthwhile:
            held = "DRAM is at its floor and holds nothing that is clearly colder"
        else:
            held = "the bandwidth of this round is spent"
    coldest = float(rates[promote - 1]) if promote else 0.0
    return Plan(
        demotions=tuple(demotions),
        promote=promote,
        promote_to=target.number,
        wanted=wanted,
        reason=f"used {coldest:.2g} to {float(rates[0]):.2g} times a second" if promote else "",
        held=held,
        demote_pages=sum(d.pages for d in demotions),
    )
