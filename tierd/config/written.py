"""A policy's data as YAML, with where each setting stands behind it as a comment. Used by `tierctl
cat-config`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from tierd.config.merge import Merged, Origin
from tierd.config.report import Location, Mark
from tierd.config.scalars import plain
from tierd.core.text import clean

# Texts that stand without quotes wherever a value may, also between brackets. Not 0x1, a number to others.
_PLAIN = re.compile(r"(?!0x)[A-Za-z0-9/][A-Za-z0-9_./%@ -]*(?<! )")


def lines(merged: Merged) -> Iterator[str]:
    """The lines of the document, which reads as the same policy. A block that stands in one file as a whole
    has one comment; one that several files have their part in, a comment for each setting."""
    assert isinstance(merged.document.data, dict)
    yield from _mapping(merged.document.data, (), merged)


def _mapping(data: dict[str, object], location: Location, merged: Merged) -> Iterator[str]:
    indent = "  " * len(location)
    for key, value in data.items():
        here = (*location, key)
        head = f"{indent}{key}:"
        if not isinstance(value, dict):
            comment = _comment(merged.origins[here])
            if not isinstance(value, list) or not value:
                yield f"{head} {scalar(value)}  # {comment}"
                continue
            yield f"{head}  # {comment}"
            yield from _block(value, indent + "  ")
        elif not value:
            yield f"{head} {{}}"
        else:
            origin = _common(here, merged)
            yield f"{head}  # {_comment(origin)}" if origin else head
            yield from _block(value, indent + "  ") if origin else _mapping(value, here, merged)


def _common(location: Location, merged: Merged) -> Origin | None:
    """The origin of the whole block, if it is one file's and replaces nothing."""
    inner = [o for place, o in merged.origins.items() if place[: len(location)] == location]
    files = {origin.file for origin in inner}
    if len(files) != 1 or any(origin.replaced for origin in inner):
        return None
    return Origin(files.pop(), min(Mark(origin.mark.line, 1) for origin in inner))


def _comment(origin: Origin) -> str:
    replaced = ", ".join(_place(file, mark) for file, mark in origin.replaced)
    return _place(origin.file, origin.mark) + (f", replaces {replaced}" if replaced else "")


def _place(file: str, mark: Mark) -> str:
    return f"{clean(file, 4096)}:{mark.line}"


def _block(value: object, indent: str) -> Iterator[str]:
    """The lines of a mapping or list that is not empty."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _entry(f"{indent}{key}:", inner, indent)
    elif isinstance(value, list):
        for item in value:
            if (
                isinstance(item, dict)
                and len(item) == 1
                and not isinstance(next(iter(item.values())), dict | list)
            ):
                ((key, inner),) = item.items()
                yield f"{indent}- {{{key}: {scalar(inner)}}}"
            elif isinstance(item, dict | list) and item:
                first, *others = _block(item, indent + "  ")
                yield f"{indent}- {first.lstrip()}"
                yield from others
            else:
                yield f"{indent}- {scalar(item)}"


def _entry(head: str, value: object, indent: str) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        yield head
        yield from _block(value, indent + "  ")
    else:
        yield f"{head} {scalar(value)}"


def scalar(value: object) -> str:
    """`value`, which is no list or mapping unless an empty one, so that config/scalars.py reads the same."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and _is_text(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _is_text(value: str) -> bool:
    try:
        return plain(value) == value
    except ValueError:
        return False
