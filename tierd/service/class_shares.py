"""What each service class has of DRAM, what it is owed, and the plan that keeps to it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from tierd.config.users import user_ids
from tierd.core.admission import Admission, admit
from tierd.core.assignment import Assignment, ClassAssigner
from tierd.core.budget import TokenBucket
from tierd.core.classes import ServiceClass
from tierd.core.holdings import Holding, Sharing, Spare
from tierd.core.model import PAGE_SIZE, Topology
from tierd.core.planner import IDLE_WITHOUT_SWAP, Observation, Plan, floor_bytes, plan
from tierd.core.sharing import plan_classes
from tierd.core.state import ClassState
from tierd.core.text import size
from tierd.errors import ConfigError, TierdError
from tierd.kernel.occupancy import read_occupancy
from tierd.kernel.paths import Root
from tierd.service.moving import Moved
from tierd.service.placed import PlacedProcesses

OWN_KINDS: Final = ("anon", "shmem")
"""What counts as a class's memory. The page cache, and programs among it, belongs to whoever read it
first."""
USERS_SECONDS: Final = 300.0
"""Between two questions for the numbers of users: they may be in a directory on the network."""
LITTLE: Final = 256
"""Base pages that a class may be off by without a round for that alone: they come and go."""
PATIENCE: Final = 5.0
"""Seconds for which a class may have too much or too little before pages go down for it whatever their use:
in these, two walks show which are cold, and what is cold goes first."""


@dataclass(slots=True)
class _Account:
    """A class in this round. dram, slow: bytes of its cgroups on each kind of node."""

    service_class: ServiceClass
    processes: int = 0
    cgroups: set[str] = field(default_factory=set)
    dram: int = 0
    slow: int = 0

    @property
    def memory(self) -> int:
        return self.dram + self.slow


class ClassShares:
    """Used by the engine only, in its thread. Does nothing, and costs nothing, where the policy has no class
    but `default` and promises that nothing."""

    def __init__(self, root: Root, placed: PlacedProcesses, clock: Callable[[], float]) -> None:
        self._root = root
        self._placed = placed
        self._clock = clock
        self._buckets: dict[str, TokenBucket] = {}
        self.adopt(())

    def adopt(self, classes: Sequence[ServiceClass], file: str = "") -> None:
        """A policy comes into force, which was read from `file`."""
        # in the order in which promises are served, which is that of admission.admit
        promised = [c for c in classes if c.dram.guaranteed or c.dram.minimum]
        rest = [c for c in classes if c not in promised]
        promised.sort(key=lambda c: (not c.dram.guaranteed, -c.priority))
        self._classes = (*promised, *rest)
        self._place = {c.name: place for place, c in enumerate(self._classes)}
        self._in_order = classes
        self._users: dict[str, int] = {}
        self._assigner = ClassAssigner(classes)
        self._next_users = -math.inf
        # a reload is no new burst for a class that was there before
        known, new = self._buckets, TokenBucket(0.0)
        self._buckets = {
            c.name: replace(known.get(c.name, new), rate=c.bandwidth) for c in classes if c.bandwidth
        }
        self._accounts: list[_Account] = []
        self._admission = Admission((), 0, 0)
        self._of_slot: dict[int, int] = {}
        self._of_cgroup: dict[str, int] = {}
        self._holdings: tuple[Holding, ...] = ()
        self._off_since: dict[str, float] = {}
        self._file = file
        self._odd: dict[str, str] | None = None
        self._promoted: Counter[str] = Counter()
        self._demoted: Counter[str] = Counter()

    def check(self, classes: Sequence[ServiceClass], file: str, topology: Topology, floor: int) -> None:
        """Raises ConfigError when a policy in `file` promises more than there is, for what the classes hold
        now."""
        trial = ClassShares(self._root, self._placed, self._clock)
        trial.adopt(classes)
        trial.look(topology, floor)
        if topology.dram and (problems := trial.admission.problems(file)):
            raise ConfigError(problems)

    @property
    def active(self) -> bool:
        first = self._classes[0] if self._classes else None
        return len(self._classes) > 1 or bool(first and (first.dram.maximum or first.dram.minimum))

    @property
    def admission(self) -> Admission:
        """What is promised, against what there is, as of the last look."""
        return self._admission

    @property
    def states(self) -> tuple[ClassState, ...]:
        """What the last look found, for all who ask."""
        short = {p.service_class.name: p.short for p in self._admission.promises}
        return tuple(
            ClassState(
                name := holding.service_class.name,
                holding.service_class.dram.words,
                holding.service_class.priority,
                account.processes,
                account.dram,
                account.slow,
                holding.least * PAGE_SIZE,
                holding.most * PAGE_SIZE,
                self._promoted[name],
                self._demoted[name],
                broken_words(holding, short.get(name, 0)),
                holding.service_class.dram.guaranteed,
                (self._odd or {}).get(name, ""),
            )
            for account, holding in zip(self._accounts, self._holdings, strict=True)
        )

    @property
    def pending(self) -> bool:
        """Whether some class has clearly more or less than it should: no time to rest."""
        return any(max(holding.lack, holding.excess) > LITTLE for holding in self._holdings)

    def guaranteed(self, cgroup: str) -> bool:
        """Whether no page of it may be asked for."""
        return self.active and self._classes[self._class_of(cgroup)].dram.guaranteed

    def least(self, swapped: float) -> float:
        """Accesses a second below which no page need be looked at, where without classes it is what is
        worth a swap: one that is worth none against all of DRAM may be worth one within its class."""
        return 1 / IDLE_WITHOUT_SWAP if self.active else swapped

    def find(self, cgroup: str, uid: int, command: str) -> Assignment:
        """The class of a process, and why."""
        return self._assigner.find(cgroup, uid, command)

    def look(self, topology: Topology, floor: int) -> None:
        """A round begins: who is in which class, and what each has. floor: the policy's extra bytes."""
        if not self.active:
            return
        self._assign()
        self._find_odd()
        self._read({node.number for node in topology.dram})
        memory = {account.service_class.name: account.memory for account in self._accounts}
        self._admission = admit(
            self._classes,
            memory,
            dram=sum(node.total for node in topology.dram),
            floor=sum(floor_bytes(node, floor) for node in topology.dram),
        )
        kept = {promise.service_class.name: promise.kept for promise in self._admission.promises}
        for bucket in self._buckets.values():
            bucket.fill(self._clock())
        self._holdings = tuple(self._holding(account, kept) for account in self._accounts)
        self._holdings = tuple(self._with_patience(holding) for holding in self._holdings)

    def _assign(self) -> None:
        self._renew_users()
        self._accounts = [_Account(service_class) for service_class in self._classes]
        self._of_slot.clear()
        self._of_cgroup.clear()
        for view in self._placed.views:
            assigned = self._assigner.find(view.cgroup, view.uid, view.command).service_class.name
            place = self._place[assigned]
            self._of_slot[self._placed.slot_of(view.id)] = place
            self._accounts[place].processes += 1
            # the kernel keeps its accounts by cgroup: where classes share one, the first that is promised
            # anything stands for all
            self._of_cgroup[view.cgroup] = min(place, self._of_cgroup.get(view.cgroup, place))
        for cgroup, place in self._of_cgroup.items():
            self._accounts[place].cgroups.add(cgroup)

    def _find_odd(self) -> None:
        """In the first look that a policy sees, which classes no process has; none of them later that one
        has."""
        if self._odd is None:
            empty = self._assigner.empty_classes(self._placed.views)
            self._odd = {found.service_class.name: found.warning(self._file) for found in empty}
        for account in self._accounts:
            if account.processes:
                self._odd.pop(account.service_class.name, None)

    def _renew_users(self) -> None:
        named = [rule.user for c in self._classes for rule in c.match if isinstance(rule.user, str)]
        if named and (now := self._clock()) >= self._next_users:
            self._next_users = now + USERS_SECONDS
            if (users := user_ids(named)) != self._users:
                self._users, self._assigner = users, ClassAssigner(self._in_order, users)

    def _read(self, dram: set[int]) -> None:
        for account in self._accounts:
            for cgroup in account.cgroups:
                try:
                    held = read_occupancy(self._root, cgroup, OWN_KINDS)
                except TierdError:
                    continue  # it is gone
                fast = sum(amount for node, amount in held.items() if node in dram)
                account.dram += fast
                account.slow += sum(held.values()) - fast

    def _holding(self, account: _Account, kept: Mapping[str, int]) -> Holding:
        name, share = account.service_class.name, account.service_class.dram
        bucket = self._buckets.get(name)
        most = share.most(account.memory) // PAGE_SIZE
        # 30 % is not kept by a page less
        least = math.ceil(min(kept.get(name, 0), share.least(account.memory)) / PAGE_SIZE)
        return Holding(
            account.service_class,
            account.dram // PAGE_SIZE,
            account.slow // PAGE_SIZE,
            min(least, most),
            most,
            max(0, int(bucket.tokens)) // PAGE_SIZE if bucket else account.memory // PAGE_SIZE,
            1 / IDLE_WITHOUT_SWAP,
        )

    def _with_patience(self, holding: Holding) -> Holding:
        name, now = holding.service_class.name, self._clock()
        off = max(holding.lack, holding.excess)
        if off <= (0 if holding.service_class.dram.guaranteed else LITTLE):
            self._off_since.pop(name, None)
        since = self._off_since.setdefault(name, now) if off else now
        return replace(holding, overdue=now - since >= PATIENCE)

    def _class_of(self, cgroup: str) -> int:
        """Of a cgroup without placed processes what its path says."""
        if cgroup not in self._of_cgroup:
            self._of_cgroup[cgroup] = self._place[self._assigner.find(cgroup, -1, "").service_class.name]
        return self._of_cgroup[cgroup]

    @property
    def sharing(self) -> Sharing:
        """Who has what, as of the last look."""
        return Sharing(self._holdings, self._of_slot, self._of_cgroup)

    def plan(self, seen: Observation, spare: Spare, coldest_in: Callable[[Collection[str]], float]) -> Plan:
        """The round's plan. spare: what may go down whatever its use. coldest_in: uses a second expected of
        the coldest pages in DRAM of some cgroups."""
        if not self.active:
            return plan(seen)
        by_place: list[list[str]] = [[] for _ in self._classes]
        for stock in seen.cold:
            by_place[self._class_of(stock.cgroup)].append(stock.cgroup)
        holdings = tuple(
            replace(holding, coldest=coldest_in({*account.cgroups, *cgroups}))
            for holding, account, cgroups in zip(self._holdings, self._accounts, by_place, strict=True)
        )
        return plan_classes(seen, replace(self.sharing, holdings=holdings), spare)

    def account(self, moved: Moved) -> None:
        """Charge each class with what was moved of it."""
        if not self.active:
            return
        asked = sum(moved.asked.values())
        for (slot, _), arrived in moved.arrived.items():
            if (place := self._of_slot.get(slot, -1)) >= 0:
                self._charge(place, self._promoted, len(arrived))
        for slot, pages in moved.pushed.items():
            if (place := self._of_slot.get(slot, -1)) >= 0:
                self._charge(place, self._demoted, pages)
        for cgroup, pages in moved.asked.items():
            # what went is known of all together
            self._charge(self._class_of(cgroup), self._demoted, pages * moved.demoted // asked)

    def _charge(self, place: int, counter: Counter[str], pages: int) -> None:
        name = self._classes[place].name
        counter[name] += pages
        if bucket := self._buckets.get(name):
            bucket.take(pages * PAGE_SIZE)


def broken_words(holding: Holding, short: int) -> str:
    """What is missing of what the class is promised. short: bytes of it for which there is no DRAM."""
    name, share = holding.service_class.name, holding.service_class.dram
    memory = holding.dram + holding.slow
    least = share.least(memory * PAGE_SIZE) // PAGE_SIZE
    lack = min(least, memory) - holding.dram
    if lack <= (0 if share.guaranteed else LITTLE):
        return ""
    words = f"{size(lack * PAGE_SIZE)} of the {size(least * PAGE_SIZE)} of DRAM that are promised to it"
    why = f"; for {size(short)} there is no DRAM" if short else "; they are being brought up"
    return f"class {name} ({share.words}) lacks {words}{why}"
