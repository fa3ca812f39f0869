"""How hard to look: at full rate while the picture is wrong, a trickle once it is right."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from tierd.core.heat import QUICK_SHARE

FULL_SIZE: Final = 256
"""MiB unmapped at a time at full rate: the kernel's own default (sysctl_numa_balancing_scan_size)."""
TRICKLE_SIZE: Final = 4
"""MiB unmapped at a time at rest: a region of the heat map, and enough to notice within seconds that the hot
set has changed."""
WRONG: Final = 0.01
"""Share of DRAM's pages that are known to be hot on a slow node, above which the picture counts as wrong."""

CALM_SHARE: Final = 0.5
"""Of the slow nodes' pages: of the last so many that were unmapped, little must be worth promoting before it
rests. Everything was unmapped once before that; a second time of all of it takes most of a minute, in which
it costs as much as the first."""
PARTS: Final = 8
"""In which what was found lately is counted."""
LASTING: Final = 0.8
"""A pass over the slow nodes gained nothing when this share of the pages that were worth promoting in the
one before, or more, still are: what goes up equals what comes down."""
FUTILE_PASSES: Final = 2
"""Passes in a row that must gain nothing; a single one may be that in which the hot set changed."""
WORSE: Final = 2.0
"""Times as many pages as it was futile to promote say that the picture has become wrong again."""
WARM: Final = 0.05
"""The same of pages that are worth promoting at all, each for a smaller gain."""
RESTING_SECONDS: Final = 2.0
"""Of a round at rest, at least. Each has a price of its own, whatever it finds; and a trickle unmaps whole
regions of the heat map in it: in half a region uses look later than they are."""
WINDOWS: Final = (1, 2)
"""Rounds over which a trickle is judged."""
FULL_WINDOW: Final = 8
"""The same at full rate, where the kernel may let seconds pass and then unmap much at once."""
LAG: Final = 1
"""Rounds before a window whose unmapped pages may be used in it."""
SURPRISE: Final = 3.0
"""A trickle that finds so many times as many quick uses as it used to, for each page unmapped, says that the
hot set has changed, when luck cannot explain it."""
ALARM: Final = 2.0
"""The same at full rate, where some quick uses are what is being looked for."""
LUCK: Final = 5.0
"""Standard deviations of a count (its square root) above what is usual that luck explains."""
UNTOLD: Final = 2 * QUICK_SHARE
"""Share of what a trickle unmaps whose quick uses are taken to be usual while it has not shown what is: a
workload that nobody disturbs any more is faster, and so are its uses (measured in the first minute of a
rest: from 0.1 to 1 %, later up to 3 %)."""
FEWEST_ROUNDS, MOST_ROUNDS = 2, 5
"""Rounds before a window that show what is usual for a trickle: no more, for it changes with the
workload."""
REMEMBERED: Final = 25
"""Rounds that are remembered, the window among them."""


Rounds = list[tuple[int, int]]
"""Quick uses, and pages unmapped, of rounds one after the other."""


@dataclass(slots=True)
class _Pass:
    """One time around the slow nodes at full rate. before: what the pass before found. promoted: urgent
    pages that went up. left: urgent pages that have not, as of the last round. limited: rounds that could
    not move all that was worth moving."""

    before: float = math.inf
    unmapped: int = 0
    rounds: int = 0
    promoted: int = 0
    left: int = 0
    limited: int = 0

    @property
    def found(self) -> int:
        return self.promoted + self.left

    @property
    def futile(self) -> bool:
        return self.found >= LASTING * self.before and 2 * self.limited < self.rounds


@dataclass(slots=True)
class ScanGovernor:
    """The scan size for the next round. Owned by the engine; `size` in MiB. changed: whether the last round
    says that other pages are hot than were, and why: what says so.

    A round that finds little proves little: the kernel may not have come by. It rests only after everything
    on the slow nodes has been unmapped once, and little was found in the last half of that; or, where more
    is hot than fits, after moving has stopped to make the picture any better.
    """

    size: int = FULL_SIZE
    changed: bool = False
    why: str = ""
    _pass: _Pass = field(default_factory=_Pass)
    _futile: int = 0
    _accepted: float = 0.0
    _gave_up: bool = False
    _trickled: int = 0
    _stood: bool = False
    _last_full: int = 0
    _looked_at: int = 0
    _part: tuple[int, int] = (0, 0)
    _lately: deque[int] = field(default_factory=lambda: deque(maxlen=PARTS))
    _seen: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def update(
        self,
        wanted: int,
        urgent: int,
        promoted: int,
        dram_pages: int,
        unmapped: int,
        slow_pages: int,
        quick: int = 0,
        *,
        limited: bool = False,
        more: bool = False,
        fresh: bool = False,
    ) -> int:
        """wanted: pages on slow nodes that are worth promoting. urgent: those that are far hotter than what
        DRAM holds. promoted: those of them that went up. dram_pages: base pages of all DRAM nodes.
        unmapped: pages that the kernel unmapped since the last call. slow_pages: pages placed on slow nodes.
        quick: pages that were used surprisingly soon after they were unmapped. limited: whether bandwidth or
        time kept this round from moving all that was worth it. more: whether more is urgent than was
        counted. fresh: whether only those count that were seen since the last call."""
        left = max(0, urgent - promoted)
        wrong = WRONG * dram_pages
        surprised = self._surprised(quick, unmapped)
        if self.resting:
            self._trickled += unmapped
            told = fresh and not self._gave_up and len(self._seen) >= MOST_ROUNDS
            stands = told and self._stands_for(urgent, wrong, slow_pages)
            # once it may be that a workload is faster than what is known of it
            much = (stands and self._stood) or urgent > max(wrong, WORSE * self._accepted)
            self._stood = stands
            if much and not surprised:
                self.why = f"{urgent} pages are far hotter than what DRAM holds"
            self.changed = surprised or much
            self._trickled = 0
        else:
            self.changed = surprised and math.isfinite(self._pass.before)
        if self.changed:
            self._look()
        if self.changed or self.resting:
            return self.size
        self._pass.unmapped += unmapped
        self._pass.rounds += 1
        self._pass.promoted += promoted
        self._pass.left = left
        self._pass.limited += limited
        found = self._found_lately(unmapped, promoted, CALM_SHARE * slow_pages) + left
        calm = not more and found <= CALM_SHARE * wrong and wanted <= WARM * dram_pages
        if calm and self._looked_at >= slow_pages > 0:
            self._rest(left)
        elif self._pass.unmapped >= slow_pages > 0:
            self._futile = self._futile + 1 if self._pass.futile else 0
            if self._futile >= FUTILE_PASSES:
                self._rest(left, gave_up=True)
            self._pass = _Pass(self._pass.found)
        return self.size

    def _found_lately(self, unmapped: int, promoted: int, pages: float) -> int:
        """Add a round, and tell how many urgent pages went up while the last `pages` were unmapped, or an
        eighth more."""
        self._looked_at += unmapped
        self._part = self._part[0] + unmapped, self._part[1] + promoted
        found = sum(self._lately) + self._part[1]
        if self._part[0] >= pages / PARTS:
            self._lately.append(self._part[1])
            self._part = (0, 0)
        return found

    def glance(self, quick: int, unmapped: int) -> None:
        """The same for a round at rest in which nothing was planned."""
        self._trickled += unmapped
        self.changed = self._surprised(quick, unmapped)
        if self.changed:
            self._look()

    def _stands_for(self, urgent: int, wrong: float, slow_pages: int) -> bool:
        """Whether so many urgent pages among those that the trickle came by say that, of all, far more are
        urgent than makes the picture wrong. A surprise takes a change of two per cent of the slow nodes,
        which may be a large part of DRAM."""
        expected = SURPRISE * wrong * self._trickled / max(1, slow_pages)
        return urgent > expected + LUCK * math.sqrt(max(1.0, expected))

    @property
    def resting(self) -> bool:
        return self.size <= TRICKLE_SIZE

    @property
    def measured(self) -> bool:
        """Whether what counts as quick is to stay as it was: at full rate until the next pass has shown what
        is usual."""
        return not self.resting and math.isfinite(self._pass.before) and self._pass.rounds > 0

    def _look(self) -> None:
        self.size, self._futile, self._accepted = FULL_SIZE, 0, 0.0
        self._pass = _Pass()
        self._looked_at, self._part = 0, (0, 0)
        self._lately.clear()
        self._seen.clear()

    def _rest(self, accepted: float, *, gave_up: bool = False) -> None:
        """accepted: pages that stay where they are, though they are hot. gave_up: because it is futile to
        promote more."""
        self.size, self._accepted = TRICKLE_SIZE, accepted
        self._gave_up, self._trickled, self._stood = gave_up, 0, False
        # what was usual at full rate is not for a trickle
        self._last_full = self._seen[-1][1] if self._seen else 0
        self._seen.clear()

    def _surprised(self, quick: int, unmapped: int) -> bool:
        """Whether the last rounds saw far more quick uses than those before, and than are expected."""
        self._seen.append((quick, unmapped))
        windows = WINDOWS if self.resting else (FULL_WINDOW,)
        return any(self._more_than_usual(list(self._seen), window) for window in windows)

    def _more_than_usual(self, rounds: Rounds, window: int) -> bool:
        before, now = rounds[:-window], rounds[-window:]
        if self.resting:
            before = before[-MOST_ROUNDS:]
        usual = sum(uses for uses, _ in before) / max(1, sum(looked_at for _, looked_at in before))
        if self.resting and len(before) < FEWEST_ROUNDS:
            usual = UNTOLD
        # where the kernel has paused, what it unmapped before the window is used in it
        pages = [unmapped for _, unmapped in rounds]
        if self.resting and not before:
            pages.insert(0, self._last_full)
        looked_at = max(sum(pages[-window:]), sum(pages[-window - LAG : -LAG]))
        expected = max(usual, QUICK_SHARE) * looked_at
        uses = sum(uses for uses, _ in now)
        factor = SURPRISE if self.resting else ALARM
        surprised = uses > factor * expected and uses > expected + LUCK * math.sqrt(max(1.0, expected))
        if surprised:
            self.why = f"{uses} of {looked_at} pages were used soon, {expected:.0f} is usual"
        return surprised
