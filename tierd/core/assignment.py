"""Which class a process has, and by which rule. Pure.

The first rule that matches decides, in the order of the policy. Whether rules for units and cgroups match
depends on the cgroup alone, and whether the others do on user and command: so each half is looked for once
for all processes that have it in common, and the earlier of the two answers is the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from tierd.core.classes import DEFAULT_CLASS, DEFAULT_NAME, ClassRule, ServiceClass
from tierd.core.model import ProcessId, ProcessView
from tierd.core.policy import ProcessMatch
from tierd.core.text import clean, plural

_REMEMBERED = 4096
"""Cgroups, and pairs of user and command, whose answer is kept: more than a host has at a time."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The class of a process. index: of the rule among those of the class, from 0; None when no rule of any
    class matches, which makes it `default`."""

    service_class: ServiceClass
    index: int | None = None

    @property
    def rule(self) -> ClassRule | None:
        """The rule that decided."""
        return None if self.index is None else self.service_class.match[self.index]

    @property
    def words(self) -> str:
        """For `tierctl explain`: ``class gold, by classes[0].match[1] (unit: gold.slice)``."""
        rule = self.rule
        if rule is None:
            return f"class {self.service_class.name}: no rule of another class matches"
        where = rule.place.path or f"match[{self.index}]"
        return f"class {self.service_class.name}, by {where} ({rule.words})"


@dataclass(frozen=True, slots=True)
class EmptyClass:
    """A class that no process has. taken: processes that a rule of it matches, and that belong to classes
    before it."""

    service_class: ServiceClass
    taken: int

    def warning(self, file: str) -> str:
        """One line for the operator, with the place in the policy `file`."""
        rules = clean(" or ".join(rule.words for rule in self.service_class.match))
        what = f"class {self.service_class.name} has no process: "
        if self.taken:
            belong = "belongs to a class" if self.taken == 1 else "belong to classes"
            what += f"{plural(self.taken, 'process')} matched by {rules} {belong} before it"
        else:
            what += f"none that is placed matches {rules}"
        return self.service_class.place.told(file, f"warning: {what}")


class ClassAssigner:
    """The rules of one policy, made fast to ask. Used by the engine, in one thread.

    users: the numbers of the users that the rules name, as config.users.user_ids finds them. A rule for a
    user who is not there matches nothing.
    """

    def __init__(self, classes: Sequence[ServiceClass], users: Mapping[str, int] | None = None) -> None:
        self._classes = tuple(classes)
        self._users = dict(users or {})
        rules = [
            (Assignment(service_class, index), rule)
            for service_class in self._classes
            for index, rule in enumerate(service_class.match)
        ]
        rest = next((c for c in self._classes if c.name == DEFAULT_NAME), DEFAULT_CLASS)
        self._answers = (*(assignment for assignment, _ in rules), Assignment(rest))
        by_cgroup = [(i, rule) for i, (_, rule) in enumerate(rules) if _is_by_cgroup(rule)]
        by_identity = [(i, rule) for i, (_, rule) in enumerate(rules) if not _is_by_cgroup(rule)]

        @lru_cache(_REMEMBERED)
        def first_by_cgroup(cgroup: str) -> int:
            return next((i for i, rule in by_cgroup if _matches_cgroup(rule, cgroup)), len(rules))

        @lru_cache(_REMEMBERED)
        def first_by_identity(uid: int, command: str) -> int:
            found = (i for i, rule in by_identity if self._matches_identity(rule, uid, command))
            return next(found, len(rules))

        self._first_by_cgroup = first_by_cgroup
        self._first_by_identity = first_by_identity

    def find(self, cgroup: str, uid: int, command: str) -> Assignment:
        """The class of a process in `cgroup` (``/a/b``) that runs as user `uid` and calls itself
        `command`."""
        return self._answers[min(self._first_by_cgroup(cgroup), self._first_by_identity(uid, command))]

    def assign(self, processes: Iterable[ProcessView]) -> dict[ProcessId, Assignment]:
        """The class of each process."""
        return {process.id: self.find(process.cgroup, process.uid, process.command) for process in processes}

    def empty_classes(self, processes: Sequence[ProcessView]) -> tuple[EmptyClass, ...]:
        """The classes with rules that none of `processes` has. Called after a policy came into force."""
        filled = {assignment.service_class.name for assignment in self.assign(processes).values()}
        return tuple(
            EmptyClass(service_class, sum(self._belongs(service_class, process) for process in processes))
            for service_class in self._classes
            if service_class.match and service_class.name not in filled
        )

    @property
    def remembered(self) -> int:
        """Answers that are kept; does not grow without bound, however many cgroups come and go."""
        caches = (self._first_by_cgroup, self._first_by_identity)
        return sum(cache.cache_info().currsize for cache in caches)

    def _belongs(self, service_class: ServiceClass, process: ProcessView) -> bool:
        """Whether any rule of the class matches, whatever the classes before it say."""
        return any(
            _matches_cgroup(rule, process.cgroup)
            or self._matches_identity(rule, process.uid, process.command)
            for rule in service_class.match
        )

    def _matches_identity(self, rule: ClassRule, uid: int, command: str) -> bool:
        if rule.user is not None:
            return uid == (self._users.get(rule.user) if isinstance(rule.user, str) else rule.user)
        return rule.command is not None and fnmatchcase(command, rule.command)


def _is_by_cgroup(rule: ClassRule) -> bool:
    return rule.unit is not None or rule.cgroup is not None


def _matches_cgroup(rule: ClassRule, cgroup: str) -> bool:
    return ProcessMatch(unit=rule.unit, cgroup=rule.cgroup).matches(cgroup)
