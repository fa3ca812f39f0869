"""What became of each planned page. Nothing is dropped: moved + already there + refused + deferred =
planned."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import Final

REASONS: Final = {
    0: "the kernel left them where they are, as it does with pinned memory",
    errno.EACCES: "several processes map them, or the process may not use that node",
    errno.EBUSY: "they are pinned, or somebody else is moving them",
    errno.EFAULT: "they belong to a mapping that cannot move, or hold nothing but zeros",
    errno.ENODEV: "the node has no memory",
    errno.ENOENT: "they have been freed",
    errno.ENOMEM: "the node has no room",
    errno.EPERM: "the kernel does not permit it",
}
"""Why the kernel refuses to move pages, by errno (move_pages(2), and do_pages_move in mm/migrate.c)."""


def explain(code: int) -> str:
    """Why pages were refused, for people. code: a positive errno, or 0."""
    return REASONS.get(code) or errno.errorcode.get(code, f"error {code}")


def fate(outcome: Outcome, least: float, most: float) -> str:
    """What became of pages of one process that were to come up, for people. least, most: uses a second of
    the least and the most used of them."""
    used = f"used {least:.2g} to {most:.2g} times a second" if most > 0 else "owed to its class"
    parts = [f"{outcome.moved} pages came up, {used}"] if outcome.moved else []
    parts += [f"{pages} stay where they are: {explain(code)}" for code, pages in outcome.errors.items()]
    if outcome.deferred:
        parts.append(f"{outcome.deferred} wait: they were refused lately, or DRAM is at its floor")
    return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Base pages by fate. errors: pages refused by errno (positive), 0 for a page that the kernel left where
    it was without saying why. seconds: time spent in the kernel. along: pages that were not planned and came
    along because a planned one is part of their huge page."""

    moved: int = 0
    already_there: int = 0
    refused: int = 0
    deferred: int = 0
    errors: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0
    along: int = 0

    @property
    def planned(self) -> int:
        return self.moved + self.already_there + self.refused + self.deferred

    @property
    def carried(self) -> int:
        """Base pages that changed their node."""
        return self.moved + self.along

    def __add__(self, other: Outcome) -> Outcome:
        errors = dict(self.errors)
        for code, pages in other.errors.items():
            errors[code] = errors.get(code, 0) + pages
        return Outcome(
            self.moved + other.moved,
            self.already_there + other.already_there,
            self.refused + other.refused,
            self.deferred + other.deferred,
            errors,
            self.seconds + other.seconds,
            self.along + other.along,
        )
