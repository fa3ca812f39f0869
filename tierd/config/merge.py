"""Merging the files of a policy: mappings key by key, and everything else, lists too, as a whole.

A list is never the sum of two files: which of its entries come first, and how one is taken out again, would
depend on file names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tierd.config.document import Document
from tierd.config.report import Location, Mark


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a setting stands. mark: of its key. replaced: the places that said otherwise before, the last
    one first."""

    file: str
    mark: Mark
    replaced: tuple[tuple[str, Mark], ...] = ()


@dataclass(frozen=True, slots=True)
class Merged:
    """Several documents as one. origins: of each setting, that is of each value below mappings alone."""

    document: Document
    origins: dict[Location, Origin] = field(default_factory=dict)

    def file_of(self, location: Location) -> str:
        """The file in which the setting `location` stands; empty when none has it."""
        found = self.origins.get(location)
        return found.file if found else ""


def merge(parts: Sequence[tuple[str, Document]]) -> Merged:
    """One document of `parts` (file, what stands in it), later ones over earlier ones. Each has passed the
    schema by itself. Raises nothing."""
    data: dict[str, object] = {}
    merged = Merged(Document(data=data, complete=True))
    for file, document in parts:
        assert isinstance(document.data, dict)
        _merge(data, document.data, (), file, document, merged)
    return merged


def _merge(
    into: dict[str, object],
    new: dict[str, object],
    location: Location,
    file: str,
    document: Document,
    merged: Merged,
) -> None:
    for key, value in new.items():
        here = (*location, key)
        if isinstance(value, dict):
            inner = into.setdefault(key, {})
            assert isinstance(inner, dict)  # the schema has one type for each setting
            merged.document.keys.setdefault(here, document.keys[here])
            merged.document.values.setdefault(here, document.values[here])
            _merge(inner, value, here, file, document, merged)
        elif here != ("version",) or key not in into:  # each file says for itself which version it is
            before = merged.origins.get(here)
            replaced = ((before.file, before.mark), *before.replaced) if before else ()
            into[key] = value
            merged.origins[here] = Origin(file, document.keys[here], replaced)
            _take_marks(here, document.keys, merged.document.keys)
            _take_marks(here, document.values, merged.document.values)


def _take_marks(location: Location, new: dict[Location, Mark], into: dict[Location, Mark]) -> None:
    for old in [known for known in into if known[: len(location)] == location]:
        del into[old]
    into.update({known: mark for known, mark in new.items() if known[: len(location)] == location})
