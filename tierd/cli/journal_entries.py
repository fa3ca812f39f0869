"""What tierd wrote to the journal, read back: each entry that has a TIERD_EVENT."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from tierd.cli import Exit
from tierd.errors import TierdError

UNIT = "tierd.service"
IDENTIFIER = "tierd"

DIRECTORIES = (Path("/run/log/journal"), Path("/var/log/journal"))
"""Where journald keeps the journal of this machine: until the next boot, and for longer."""

INFO = 6
"""syslog(3)'s level of what has no PRIORITY."""


class DeniedJournalError(TierdError):
    """The journal is there, and not for this user."""

    status = Exit.NOT_AUTHORISED

    def __init__(self) -> None:
        super().__init__(
            "no permission to read the journal",
            hint="run it as root, or as a member of the group systemd-journal",
        )


class Reader(Protocol):
    """What is used of systemd.journal.Reader."""

    def add_match(self, match: str) -> object: ...
    def add_disjunction(self) -> object: ...
    def seek_tail(self) -> object: ...
    def get_previous(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. time: of the wall clock, with a time zone. priority: of syslog(3). fields: those that begin
    with ``TIERD_``, TIERD_EVENT included; values may be several lines."""

    time: datetime
    event: str
    message: str
    priority: int
    fields: Mapping[str, str]


def open_journal(directories: Sequence[Path] = DIRECTORIES) -> Reader:
    """The journal of this machine. Raises DeniedJournalError, OSError, and ImportError without
    python-systemd."""
    from systemd import journal

    # Files that may not be read are left out in silence; what is left looks like a journal without tierd.
    if _denied(directories):
        raise DeniedJournalError
    try:
        found: Reader = journal.Reader(flags=journal.LOCAL_ONLY | journal.SYSTEM_ONLY, converters=CONVERTERS)
    except PermissionError:
        raise DeniedJournalError from None
    return found


def _denied(directories: Sequence[Path]) -> bool:
    """Whether a journal of the system exists in `directories`, and no file of it can be read."""
    there = [path for path in directories if path.is_dir()]
    closed = [path for path in there if not os.access(path, os.R_OK | os.X_OK)]
    machines = [one for path in there if path not in closed for one in path.iterdir() if one.is_dir()]
    closed += [path for path in machines if not os.access(path, os.R_OK | os.X_OK)]
    files = [path / "system.journal" for path in machines if path not in closed]
    files = [path for path in files if path.exists()]
    return bool(closed or files) and not any(os.access(path, os.R_OK) for path in files)


def newest(
    reader: Reader,
    *,
    most: int | None,
    since: datetime | None = None,
    events: Sequence[str] = (),
    users: Sequence[int] = (0,),
) -> tuple[list[Entry], bool]:
    """The newest entries of tierd, oldest first, and whether there are older ones of the kind.

    most: how many, None for all. since: none that is older. events: with one of these names alone.
    users: whose entries count outside the daemon's unit. The identifier is the sender's own word, and
    everybody may write to the journal.
    """
    for groups in ([f"_SYSTEMD_UNIT={UNIT}"], [f"SYSLOG_IDENTIFIER={IDENTIFIER}", *_uids(users)]):
        for match in (*groups, *(f"TIERD_EVENT={name}" for name in events)):
            reader.add_match(match)
        reader.add_disjunction()
    reader.seek_tail()
    found: list[Entry] = []
    while fields := reader.get_previous():
        if "TIERD_EVENT" not in fields:
            continue
        entry = entry_of(fields)
        if since is not None and entry.time < since:
            break
        if len(found) == most:
            return found[::-1], True
        found.append(entry)
    return found[::-1], False


def _uids(users: Sequence[int]) -> list[str]:
    return [f"_UID={user}" for user in users]


def entry_of(fields: Mapping[str, Any]) -> Entry:
    """An entry of what the reader makes of it, with CONVERTERS."""
    texts = {name: _text(value) for name, value in fields.items() if name.startswith("TIERD_")}
    try:
        priority = int(_text(fields.get("PRIORITY", INFO)))
    except ValueError:
        priority = INFO
    return Entry(
        fields["__REALTIME_TIMESTAMP"],
        texts["TIERD_EVENT"],
        _text(fields.get("MESSAGE", "")),
        priority,
        texts,
    )


def _text(value: Any) -> str:
    """A field may have several values, and any may be bytes that are not UTF-8."""
    if isinstance(value, list | tuple):
        return "\n".join(map(_text, value))
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _time(microseconds: int) -> datetime:
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest).astimezone()


CONVERTERS = {"__REALTIME_TIMESTAMP": _time}
"""For systemd.journal.Reader, whose own makes times with a zone in some versions and without in others."""
