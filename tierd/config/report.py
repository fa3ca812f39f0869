"""What is wrong, or odd, with a policy file, gathered while it is read and told all at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from tierd.core.text import clean

LIMIT = 100
"""Problems told of one file. A file with more is the wrong file, and nobody reads on."""

_WARNING = "warning: "

Location = tuple[str | int, ...]
"""Where a value stands in the document: keys and list indices (from 0) from the top."""


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in the text, both 1-based; columns count characters, as editors do."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One fault: the place, the location in words, and what is wrong and what to write instead."""

    mark: Mark
    where: str
    message: str


class Told(str):
    """A problem or a warning as the line that is printed, which knows what it is made of. parts: file, line,
    column, path and message; the three in the midst are None where it is about the file as a whole."""

    parts: Mapping[str, str | int | None]

    @classmethod
    def of(
        cls, file: str, message: str, *, kind: str = "", mark: Mark | None = None, where: str = ""
    ) -> Self:
        """``FILE:LINE:COLUMN: PATH: KIND MESSAGE`` where there is a `mark`, else ``FILE: KIND MESSAGE``."""
        name = clean(file, 4096)
        place = name if mark is None else f"{name}:{mark.line}:{mark.column}: {where}"
        told = cls(f"{place}: {kind}{message}")
        line, column = (None, None) if mark is None else (mark.line, mark.column)
        told.parts = {
            "file": name,
            "line": line,
            "column": column,
            "path": where if mark else None,
            "message": message,
        }
        return told


class Report:
    """Collects the problems of one file, up to LIMIT, and its warnings, which keep no policy from being
    used."""

    def __init__(self) -> None:
        self._problems: set[Problem] = set()
        self._warnings: set[Problem] = set()
        self._more = False

    def add(self, mark: Mark, location: Location, message: str) -> None:
        """Notes a problem; the same one twice is one."""
        problem = Problem(mark, shown_location(location), message)
        if len(self._problems) >= LIMIT and problem not in self._problems:
            self._more = True
        else:
            self._problems.add(problem)

    def warn(self, mark: Mark, location: Location, message: str) -> None:
        """Notes what is odd and no problem; the same thing twice is one."""
        self._warnings.add(Problem(mark, shown_location(location), message))

    @property
    def overflowing(self) -> bool:
        """Whether there were more problems than are told; whoever looks for them may stop."""
        return self._more

    def __bool__(self) -> bool:
        return bool(self._problems)

    def lines(self, file: str) -> tuple[Told, ...]:
        """``FILE:LINE:COLUMN: PATH: message`` for each problem, in the order of the text."""
        more = Told.of(file, f"more than {LIMIT} problems; the rest is not shown")
        return (*_told(file, self._problems), *([more] if self._more else []))

    def warnings(self, file: str) -> tuple[Told, ...]:
        """``FILE:LINE:COLUMN: PATH: warning: message`` for each of the first LIMIT warnings, in the order of
        the text."""
        more = Told.of(file, f"more than {LIMIT} warnings; the rest is not shown", kind=_WARNING)
        return (
            *_told(file, self._warnings, _WARNING)[:LIMIT],
            *([more] if len(self._warnings) > LIMIT else []),
        )


def _told(file: str, problems: Iterable[Problem], kind: str = "") -> tuple[Told, ...]:
    return tuple(Told.of(file, p.message, kind=kind, mark=p.mark, where=p.where) for p in sorted(problems))


def shown_location(location: Location) -> str:
    """`location` as ``provision[0].region.iset_id``; ``top level`` for the document itself."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{clean(part, 60)}" if text else clean(part, 60)
    return text or "top level"
