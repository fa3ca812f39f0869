"""Which regions an operator has drained: they stay so over reboots, until told otherwise.

The file lies beside the record of conversions. Only root writes it, `tierctl drain`; everybody may read it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tierd.errors import DeniedError, MalformedError
from tierd.kernel.files import named_errors, write_all

NAME = "drained.json"


@dataclass(frozen=True, slots=True)
class Drained:
    """One region, by its interleave set. since: UTC, as ``2026-11-25T13:00:00Z``. deadline: seconds for
    emptying the memory of one namespace, None for the usual."""

    iset_id: int
    since: str
    deadline: float | None = None


def read_drained(directory: Path) -> tuple[Drained, ...]:
    """All of them, oldest first; none without the file. Raises DeniedError, MalformedError."""
    path = directory / NAME
    with named_errors(path):
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return ()
    try:
        return tuple(
            Drained(
                int(entry["iset_id"], 16),
                str(entry["since"]),
                None if entry["deadline"] is None else float(entry["deadline"]),
            )
            for entry in json.loads(text)["regions"]
        )
    except (ValueError, TypeError, KeyError) as error:
        raise MalformedError(f"{path}: not a list of drained regions: {error}") from None


def mark_drained(directory: Path, iset_ids: frozenset[int], deadline: float | None) -> None:
    """Remember `iset_ids` as drained from now on, or from when they were. Raises DeniedError,
    MalformedError."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def add(before: tuple[Drained, ...]) -> tuple[Drained, ...]:
        since = {entry.iset_id: entry.since for entry in before}
        kept = (entry for entry in before if entry.iset_id not in iset_ids)
        return (*kept, *(Drained(n, since.get(n, now), deadline) for n in sorted(iset_ids)))

    _change(directory, add)


def forget_drained(directory: Path, iset_ids: frozenset[int]) -> None:
    """They may become memory again. Raises DeniedError, MalformedError."""
    _change(directory, lambda before: tuple(entry for entry in before if entry.iset_id not in iset_ids))


def _change(directory: Path, change: Callable[[tuple[Drained, ...]], tuple[Drained, ...]]) -> None:
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        with _locked(directory) as opened:
            regions = [
                {"iset_id": f"{entry.iset_id:#x}", "since": entry.since, "deadline": entry.deadline}
                for entry in change(read_drained(directory))
            ]
            new = directory / f".{NAME}.{secrets.token_hex(4)}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(new, flags, 0o600)
            try:
                write_all(descriptor, json.dumps({"regions": regions}, indent=1).encode() + b"\n")
                os.fchmod(descriptor, 0o644)
                os.fsync(descriptor)
                os.rename(new, directory / NAME)
            except BaseException:
                os.unlink(new)
                raise
            finally:
                os.close(descriptor)
            os.fsync(opened)
    except OSError as error:
        raise DeniedError(f"{directory / NAME}: {error.strerror}") from error


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
