"""Loading the policy: read safely, parse strictly, check shape and sense, merge, build the value."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tierd.config import files, source
from tierd.config.report import Report
from tierd.core.policy import Policy
from tierd.core.text import clean
from tierd.errors import ConfigError

if TYPE_CHECKING:
    from tierd.config.document import Document
    from tierd.config.merge import Merged

DEFAULT_PATH = files.DIRECTORIES[0] / files.MAIN
"""The administrator's main file; files of consent lie beside it, whichever files make the policy."""


@dataclass(frozen=True, slots=True)
class InForce:
    """The policy in force, with all that is known of where it comes from. found: its files, and those that
    they mask."""

    policy: Policy
    merged: Merged
    found: tuple[files.PolicyFile, ...]


def load(path: Path | None, *, trusted: bool = True) -> Policy:
    """The policy in the file `path` alone; the one in force, of all its files, where `path` is None.

    trusted: whether the file is to be obeyed; then it must be safe from everybody but root and the caller
    (see `tierd.config.source.read`). False for a draft that is only checked.
    Raises ConfigError with every problem, ``FILE:LINE:COLUMN: PATH: message`` in the order of the files and
    of their text, or ``FILE: message`` for a file that cannot be had. Called by the daemon at start and on
    reload, by tierd-convert and by `tierd.config.check`.
    """
    if path is None:
        return load_in_force().policy
    content = source.read(path, trusted=trusted)
    return parse(content, os.fspath(path), own=files.place_of(path) in (None, files.DIRECTORIES[0]))


def load_chosen(draft: Path | None) -> Policy:
    """The policy in force where `draft` is None, else that file alone: a draft, whose owner and mode do not
    matter yet, unless it lies where it is obeyed. Raises like load. Called by every command that takes a
    policy as its argument."""
    return load(draft, trusted=draft is None or files.place_of(draft) is not None)


def load_in_force() -> InForce:
    """The policy in force. Raises like load, with the problems of all its files."""
    from tierd.config.merge import merge

    found = files.gather()
    parts: list[tuple[str, Document]] = []
    problems: list[str] = []
    for file in found:
        problems += file.problems
        if file.problems or not file.speaks:
            continue
        path = os.fspath(file.path)
        document, report = _examine(file.content, own=file.own)
        if file.own:
            _check_replaced(parts, document, report)
        problems += report.lines(path)
        parts.append((path, document))
    if problems:
        raise ConfigError(tuple(problems))
    merged = merge(parts)
    origin, *drop_ins = (path for path, _ in parts)
    digest = _digest([file for file in found if file.speaks])
    return InForce(_build(merged, origin, tuple(drop_ins), digest), merged, found)


def parse(content: bytes, origin: str, *, own: bool = True) -> Policy:
    """The policy in `content`; `origin` is the FILE of the problems. own: whether the file is the
    administrator's, who alone may ask for memory. Raises ConfigError."""
    from tierd.config.merge import merge

    document, report = _examine(content, own=own)
    if report:
        raise ConfigError(report.lines(origin))
    return _build(merge([(origin, document)]), origin, (), hashlib.sha256(content).hexdigest())


def _examine(content: bytes, *, own: bool) -> tuple[Document, Report]:
    """What stands in one file, and what is wrong with it; when nothing is, the data is a mapping."""
    # Here and not above: PyYAML and jsonschema cost start-up time, which `tierd --help` need not spend.
    from tierd.config import build, document, shape

    report = Report()
    read = document.read(content, report)
    if read.complete or isinstance(read.data, Mapping):
        shape.check(read, report)
        build.cross_check(read, report)
    if not own and isinstance(read.data, Mapping) and "provision" in read.data:
        message = (
            f"which memory is made is this machine's own affair, and asked for in {DEFAULT_PATH}, or a"
            f" drop-in in {DEFAULT_PATH.parent / files.DROP_INS}, only; move it there"
        )
        report.add(read.keys[("provision",)], ("provision",), message)
    return read, report


def _check_replaced(parts: Sequence[tuple[str, Document]], document: Document, report: Report) -> None:
    """A list of requests replaces an earlier one as a whole, like every list. One that leaves a request out
    is refused: its memory would be missing after the next boot, which nobody has asked for."""
    lists = [part for part in parts if isinstance(part[1].data, Mapping) and "provision" in part[1].data]
    if not lists or not isinstance(document.data, Mapping) or "provision" not in document.data:
        return
    file, before = lists[-1]
    now = _names(document)
    lost = [name for name in _names(before) if name not in now]
    if lost:
        line = before.keys[("provision",)].line
        message = (
            f"this list replaces the one in {clean(file, 4096)}, line {line}, and leaves out"
            f" {', '.join(clean(name, 60) for name in lost)}; write every request in this list, or remove"
            " from that one what is not wanted any more"
        )
        report.add(document.keys[("provision",)], ("provision",), message)


def _names(document: Document) -> list[str]:
    """The names of the requests in a document of any shape that has the key."""
    entries = document.data.get("provision") if isinstance(document.data, dict) else None
    named = [entry.get("name") for entry in entries or () if isinstance(entry, dict)]
    return [name for name in named if isinstance(name, str)]


def _digest(found: Sequence[files.PolicyFile]) -> str:
    """SHA-256 of the one file; of several, that of what sha256sum(1) prints of them, in their order."""
    digests = [hashlib.sha256(file.content).hexdigest() for file in found]
    if len(found) == 1:
        return digests[0]
    lines = (f"{digest}  {file.path}\n" for digest, file in zip(digests, found, strict=True))
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def _build(merged: Merged, origin: str, drop_ins: tuple[str, ...], digest: str) -> Policy:
    from tierd.config import build, classes

    report = Report()
    classes.warn(merged.document, report)
    where = merged.file_of(("classes",)) or origin
    return build.build(
        merged.document,
        origin=origin,
        drop_ins=drop_ins,
        digest=digest,
        warnings=report.warnings(where),
        classes_file=where,
    )
