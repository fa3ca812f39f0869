"""The ledger: every kernel setting tierd changes, written down before the change, and put back from there.

One record a setting, the file replaced whole (written beside, fsync, rename) before the kernel is touched,
so that a kill at any instant leaves either an untouched setting or one that the ledger can undo. It lies
below /run: a reboot resets the kernel's settings, and the ledger with them.

The helper (service/helper.py) is the only writer. It runs as root on what it reads here, so a ledger that
somebody else could have written is refused.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from tierd.errors import DeniedError, GoneError, MalformedError, TierdError

DEFAULT_PATH = Path("/run/tierd/settings.json")
VERSION = 1
_LARGEST = 1 << 20
_PATIENCE: Final = 1.0
"""Seconds for which a setting that is busy is tried again: DAMON's refuse whoever does not get their lock at
once (mutex_trylock in mm/damon/sysfs.c)."""
_T = TypeVar("_T")


class Outcome(StrEnum):
    """How the undoing of one setting ended.

    restored: written and read back. unchanged: it already had its old value. gone: the file no longer
    exists. foreign: somebody else has set a third value since, which stays. failed: the kernel did not take
    the old value; the record stays in the ledger.
    """

    RESTORED = "restored"
    UNCHANGED = "unchanged"
    GONE = "gone"
    FOREIGN = "foreign"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Record:
    """One setting. Values as the kernel prints them, without the line end.

    value: what tierd set, or None when the daemon may write anything to it through a descriptor of its own.
    settled: whether `value` was read back from the kernel after the write. While it is not, any value is
    taken to be tierd's own, because the write may have happened just before a crash.
    """

    path: str
    before: str
    value: str | None
    settled: bool


@dataclass(frozen=True, slots=True)
class Restored:
    """What `restore_all` did with one setting; `now` is its value afterwards, None when unknown."""

    path: str
    before: str
    now: str | None
    outcome: Outcome
    reason: str = ""

    def __str__(self) -> str:
        match self.outcome:
            case Outcome.RESTORED:
                return f"{self.path}: put back to {self.before}"
            case Outcome.UNCHANGED:
                return f"{self.path}: still {self.before}"
            case Outcome.GONE:
                return f"{self.path}: no longer there, nothing to put back"
            case Outcome.FOREIGN:
                return f"{self.path}: left at {self.now}, which somebody else has set (it was {self.before})"
            case Outcome.FAILED:
                return f"{self.path}: cannot be put back to {self.before}: {self.reason}"


def read_setting(path: Path) -> str:
    """The setting's value. Of a choice such as ``always [madvise] never`` the chosen word.

    Raises GoneError when there is no such file, DeniedError when it may not be read, TierdError otherwise.
    """
    try:
        text = patiently(lambda: path.read_text(encoding="ascii", errors="replace")).strip()
    except OSError as error:
        raise _explain(error, path, "read") from error
    chosen = [word[1:-1] for word in text.split() if word.startswith("[") and word.endswith("]")]
    return chosen[0] if len(chosen) == 1 else text


def write_setting(path: Path, value: str) -> None:
    """One write(2), creating nothing: sysctl, sysfs and debugfs take a value whole or not at all."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            patiently(lambda: os.write(descriptor, f"{value}\n".encode("ascii")))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _explain(error, path, f"set to {value}") from error


def patiently(action: Callable[[], _T]) -> _T:
    """`action`, again for a second while it is busy. Also called for the doors of DAMON. Raises OSError."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return action()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() >= deadline:
                raise
        time.sleep(_PATIENCE / 20)


def _explain(error: OSError, path: Path, attempt: str) -> TierdError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENODEV):
        return GoneError(f"{path} does not exist")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DeniedError(f"{path} may not be {attempt}: {error.strerror}")
    return TierdError(f"{path} cannot be {attempt}: {error.strerror}")


class Ledger:
    """The settings changed so far. Opening one that a crash left behind keeps the original values in it."""

    def __init__(self, path: Path = DEFAULT_PATH) -> None:
        """Reads `path` if it exists.

        Raises DeniedError when its owner is not the caller or others may write it, MalformedError when it is
        not a ledger.
        """
        self.path = path
        self._records: dict[str, Record] = {record.path: record for record in _load(path)}

    @property
    def records(self) -> tuple[Record, ...]:
        """Oldest first."""
        return tuple(self._records.values())

    def holds(self, path: Path) -> bool:
        """Whether `path` was changed, or handed out to be changed, by this run or by one that crashed."""
        return os.fspath(path) in self._records

    def set(self, path: Path, value: str) -> None:
        """Write `value` to the kernel setting `path`, the old value first into the ledger.

        `value` in the form in which the kernel prints it. Nothing is written when the setting has it
        already. A value that somebody else has set since tierd last did becomes the one to put back. Raises
        GoneError, DeniedError or TierdError; the kernel then still has its old value.
        """
        current = read_setting(path)
        record = self._records.get(os.fspath(path))
        if record is None or (record.settled and current not in (record.before, record.value)):
            if current == value:
                return
            record = Record(os.fspath(path), current, value, settled=False)
        self._put(replace(record, value=value, settled=False))
        try:
            if current != value:
                write_setting(path, value)
            held = read_setting(path)
            if held == current and current != value:
                raise TierdError(f"{path} took {value} and still reads {held}")
        except TierdError:
            if read_setting_or_none(path) in (record.before, None):
                self._drop(record)
            raise
        self._put(replace(record, value=held, settled=True))

    def remember(self, path: Path) -> None:
        """Write down the value of `path` because the daemon may change it through a descriptor it is given.

        What the daemon wrote cannot be told from what others wrote, so the remembered value is put back in
        any case. Raises GoneError or DeniedError.
        """
        if not self.holds(path):
            self._put(Record(os.fspath(path), read_setting(path), None, settled=False))

    def restore_all(self, below: Path | None = None) -> tuple[Restored, ...]:
        """Put every setting back, or those of `below`, a file or a directory, the last one first, and forget
        it unless that failed.

        Never raises for a setting; OSError when the ledger itself cannot be written.
        """
        chosen = [
            record for record in self.records if below is None or Path(record.path).is_relative_to(below)
        ]
        results = tuple(_restore(record) for record in reversed(chosen))
        done = {result.path for result in results if result.outcome is not Outcome.FAILED}
        self._records = {path: record for path, record in self._records.items() if path not in done}
        self._save()
        return results

    def _put(self, record: Record) -> None:
        self._records[record.path] = record
        self._save()

    def _drop(self, record: Record) -> None:
        del self._records[record.path]
        self._save()

    def _save(self) -> None:
        if not self._records:
            self.path.unlink(missing_ok=True)
            return
        document = {"version": VERSION, "settings": [asdict(record) for record in self._records.values()]}
        write_whole(self.path, json.dumps(document, indent=1) + "\n")


def read_setting_or_none(path: Path) -> str | None:
    """As `read_setting`, with None for a setting that cannot be read."""
    try:
        return read_setting(path)
    except TierdError:
        return None


def _restore(record: Record) -> Restored:
    path = Path(record.path)
    try:
        current = read_setting(path)
        if current == record.before:
            return Restored(record.path, record.before, current, Outcome.UNCHANGED)
        if record.settled and current != record.value:
            return Restored(record.path, record.before, current, Outcome.FOREIGN)
        write_setting(path, record.before)
        current = read_setting(path)
    except GoneError:
        return Restored(record.path, record.before, None, Outcome.GONE)
    except TierdError as error:
        return Restored(record.path, record.before, read_setting_or_none(path), Outcome.FAILED, str(error))
    if current != record.before:
        return Restored(record.path, record.before, current, Outcome.FAILED, f"it still reads {current}")
    return Restored(record.path, record.before, current, Outcome.RESTORED)


def write_whole(path: Path, text: str) -> None:
    """Replace `path` by a file with `text`, mode 0644, in one step that survives a kill. Raises OSError.

    Also used for the other files that the helper leaves in /run/tierd.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)


def _load(path: Path) -> tuple[Record, ...]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise DeniedError(f"{path} cannot be opened: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
            raise DeniedError(
                f"{path} is not a file of ours that only we can write",
                hint="remove it; a reboot resets the settings it may hold",
            )
        data = file.read(_LARGEST)
    try:
        document = json.loads(data)
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']}")
        return tuple(_record(entry) for entry in document["settings"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MalformedError(f"{path} is not a ledger of kernel settings: {error}") from error


def _record(entry: dict[str, object]) -> Record:
    path, before, value, settled = entry["path"], entry["before"], entry["value"], entry["settled"]
    if not (isinstance(path, str) and isinstance(before, str) and isinstance(settled, bool)):
        raise ValueError("a record has the wrong types")
    if not (value is None or isinstance(value, str)):
        raise ValueError("a record has the wrong types")
    return Record(path, before, value, settled)
