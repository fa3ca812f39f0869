"""What became of each planned page. Nothing is dropped: moved + already there + refused + deferred =
planned."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Outcome:
    """Base pages by fate. errors: pages refused by errno (positive), 0 for a page that the kernel left where
    it was without saying why. seconds: time spent in the kernel."""

    moved: int = 0
    already_there: int = 0
    refused: int = 0
    deferred: int = 0
    errors: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def planned(self) -> int:
        return self.moved + self.already_there + self.refused + self.deferred

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
        )
