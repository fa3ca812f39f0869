"""Strict YAML: the JSON subset of it, comments included, with the place of every key and value.

Read from PyYAML's events rather than its nodes: events come one at a time, so depth and number of values are
bounded before anything is built, and recursion is ours. Imported while a policy is loaded only.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from tierd.config.report import Location, Mark, Report
from tierd.config.scalars import plain
from tierd.config.syntax import explain
from tierd.core.text import clean

MAXIMUM_DEPTH = 16
MAXIMUM_VALUES = 2000

# What YAML 1.2 §5.1 excludes, and NEL, LS, PS and lone CR: line breaks to YAML, but not to editors.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]|\r(?!\n)"
)


_STANDARD_TAG = "tag:yaml.org,2002:"
_EMPTY = "the policy is empty; write at least the line `version: 1`"


class Refused:
    """Stands for a value that was complained about already."""

    def __repr__(self) -> str:
        return "refused"


REFUSED = Refused()


class _StopReading(Exception):
    """The text cannot be read any further; the report says why."""


@dataclass(slots=True)
class Document:
    """A policy file as plain data.

    data: dicts, lists, str, int, float, bool, None, Word, and REFUSED for what could not be accepted.
    keys, values: where each key and each value begins.
    complete: whether the whole text was read; if not, what is missing in `data` proves nothing.
    """

    data: object = REFUSED
    keys: dict[Location, Mark] = field(default_factory=dict)
    values: dict[Location, Mark] = field(default_factory=dict)
    complete: bool = False


def read(content: bytes, report: Report) -> Document:
    """The document in `content`; what is wrong with it as YAML goes into `report`. Raises nothing."""
    document = Document()
    text = _decode(content, report)
    if text is None:
        return document
    reader = _Reader(text, document, report)
    try:
        reader.run()
    except _StopReading:
        return document
    except yaml.MarkedYAMLError as error:
        place, message = explain(error)
        report.add(_mark(place) if place else Mark(1, 1), reader.location, message)
        return document
    except Exception as error:  # PyYAML lets ValueError, OverflowError and others through on hostile escapes
        report.add(
            reader.mark, reader.location, f"cannot be read as YAML ({type(error).__name__}); see this line"
        )
        return document
    document.complete = True
    return document


def _decode(content: bytes, report: Report) -> str | None:
    """`content` as text, or None with the reasons in `report`."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        report.add(Mark(1, 1), (), "the file is UTF-16; save it as UTF-8")
        return None
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        byte = content[error.start]
        report.add(
            _mark_at(before, len(before)), (), f"the byte 0x{byte:02x} is not UTF-8; save the file as UTF-8"
        )
        return None
    found = False
    for match in _FORBIDDEN.finditer(text):
        code = f"U+{ord(match[0]):04X}"
        names = {
            "\x00": "a NUL character",
            "\x1b": "an escape character",
            "\r": "a carriage return without a line feed",
        }
        what = names.get(match[0], "an invisible or control character")
        report.add(
            _mark_at(text, match.start()), (), f"{what} ({code}) cannot be part of a policy; remove it"
        )
        found = True
        if report.overflowing:
            break
    return None if found else text


def _mark_at(text: str, index: int) -> Mark:
    return Mark(text.count("\n", 0, index) + 1, index - (text.rfind("\n", 0, index) + 1) + 1)


def _mark(mark: Any) -> Mark:
    """PyYAML counts from 0."""
    return Mark(mark.line + 1, mark.column + 1)


def _short(tag: str) -> str:
    return "!!" + tag.removeprefix(_STANDARD_TAG) if tag.startswith(_STANDARD_TAG) else tag


class _Reader:
    """Turns events into data, noting marks and problems."""

    def __init__(self, text: str, document: Document, report: Report) -> None:
        self._loader = yaml.SafeLoader(text)
        self._document = document
        self._report = report
        self._count = 0
        self.location: Location = ()

    @property
    def mark(self) -> Mark:
        """How far the text has been read."""
        return Mark(self._loader.line + 1, self._loader.column + 1)

    def run(self) -> None:
        """Reads the one document. Raises _StopReading, yaml.YAMLError and what PyYAML lets through."""
        self._next()  # StreamStart
        start = self._next()
        if isinstance(start, yaml.StreamEndEvent):
            self._report.add(Mark(1, 1), (), _EMPTY)
            return
        assert isinstance(start, yaml.DocumentStartEvent)
        if start.version or start.tags:
            self._report.add(
                _mark(start.start_mark), (), "directives (%YAML, %TAG) are not accepted; remove the line"
            )
        data = self._value(self._next(), ())
        if data is None:
            self._report.add(Mark(1, 1), (), _EMPTY)
        else:
            self._document.data = data
        self._next()  # DocumentEnd
        following = self._next()
        if not isinstance(following, yaml.StreamEndEvent):
            message = "a second document begins here; a policy is one: remove this `---` or what follows"
            self._report.add(_mark(following.start_mark), (), message)

    def _next(self) -> yaml.Event:
        event = self._loader.get_event()  # type: ignore[no-untyped-call]
        assert isinstance(event, yaml.Event)  # the parser ends with StreamEnd, after which nobody asks
        return event

    def _value(self, event: yaml.Event, location: Location) -> object:
        self.location = location
        place = _mark(event.start_mark)
        self._document.values.setdefault(location, place)
        self._count += 1
        if self._count > MAXIMUM_VALUES:
            self._report.add(place, (), f"more than {MAXIMUM_VALUES} values; a policy is small")
            raise _StopReading
        if isinstance(event, yaml.AliasEvent):
            word = "*" + clean(str(event.anchor), 60)
            message = f'`{word}` is an alias in YAML; write the value out, or a glob in quotes: "{word}"'
            return self._refuse(place, location, message)
        assert isinstance(event, yaml.NodeEvent)
        accepted = self._accept_properties(event, place, location)
        value: object
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, place, location)
        else:
            if len(location) >= MAXIMUM_DEPTH:
                self._report.add(place, location[:4], f"nested deeper than {MAXIMUM_DEPTH} levels")
                raise _StopReading
            mapping = isinstance(event, yaml.MappingStartEvent)
            value = self._mapping(location) if mapping else self._sequence(location)
        self.location = location[:-1]
        return value if accepted else REFUSED

    def _accept_properties(self, event: yaml.NodeEvent, place: Mark, location: Location) -> bool:
        """Whether `event` has neither anchor nor tag."""
        if event.anchor is not None:
            anchor = clean(event.anchor, 60)
            message = f"`&{anchor}` is an anchor in YAML; write the value out each time, without anchors"
            self._report.add(place, location, message)
        tag = getattr(event, "tag", None)
        if tag is not None:
            message = f"the tag `{clean(_short(tag), 60)}` is not accepted; remove it (quotes make a text)"
            self._report.add(place, location, message)
        return event.anchor is None and tag is None

    def _scalar(self, event: yaml.ScalarEvent, place: Mark, location: Location) -> object:
        text = event.value
        if not text.isprintable():
            odd = next(c for c in text if not c.isprintable())
            names = {"\n": "a line break", "\t": "a tab", "\x1b": "an escape character"}
            what = names.get(odd, "an invisible character")
            return self._refuse(
                place,
                location,
                f"the text contains {what} (U+{ord(odd):04X}); write it on one line, "
                "with visible characters only",
            )
        if event.tag is not None or event.style is not None:
            return text
        try:
            return plain(text)
        except ValueError as error:
            return self._refuse(place, location, clean(str(error), 400))

    def _sequence(self, location: Location) -> list[object]:
        items: list[object] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            items.append(self._value(event, (*location, len(items))))
        return items

    def _mapping(self, location: Location) -> dict[str, object]:
        items: dict[str, object] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            self.location = location
            place = _mark(event.start_mark)
            key = self._key(event, location)
            inner = (*location, key if key is not None else "?")
            if key is None:
                self._value(self._next(), inner)
            elif key in items:
                first = self._document.keys[inner].line
                message = f"this key is already on line {first}; keep one of the two"
                self._report.add(place, inner, message)
                self._value(self._next(), inner)
            else:
                self._document.keys[inner] = place
                items[key] = REFUSED
                # Where the value is empty, the key is the place to look at.
                value = self._value(self._next(), inner)
                if value is None:
                    self._document.values[inner] = place
                items[key] = value
        return items

    def _key(self, event: yaml.Event, location: Location) -> str | None:
        """The key, or None with the reason in the report."""
        place = _mark(event.start_mark)
        if not isinstance(event, yaml.ScalarEvent):
            self._value(event, (*location, "?"))
            if not isinstance(event, yaml.AliasEvent):
                self._report.add(
                    place, location, "a list or a mapping cannot be a key; write a word and a colon"
                )
            return None
        accepted = self._accept_properties(event, place, location)
        text = event.value
        if event.style is None and event.tag is None:
            if text == "<<":
                self._refuse(place, location, "merge keys (`<<`) are not accepted; write the keys out")
                return None
            try:
                word = plain(text)
            except ValueError:
                word = None
            if not isinstance(word, str):
                message = f"the key `{clean(text, 60)}` is not a word to YAML; write one, without quotes"
                self._refuse(place, location, message)
                return None
        return text if accepted else None

    def _refuse(self, place: Mark, location: Location, message: str) -> Refused:
        self._report.add(place, location, message)
        return REFUSED
