"""DAMON as it stands on this machine: whether the kernel has it, who uses it, and tierd's own part of it.

There is one DAMON for all: its modules and its sysfs tree exclude each other, and a second writer of the
tree destroys the first one's work. Whoever uses it is named and left alone.

tierd's own part is a row of monitors (kdamonds), each for one process, made by the helper and started and
stopped by the daemon through two doors for each. One for all would have to be told of each process that
comes or goes, at which 6.12 forgets the regions of all, and stops for good if one has ended meanwhile. They
only watch: a monitor without schemes changes nothing. The files are explained in the kernel's documentation
(admin-guide/mm/damon/usage.rst), the numbers in mm/damon/design.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tierd.errors import GoneError, TierdError
from tierd.kernel.files import read_text
from tierd.kernel.paths import Root
from tierd.kernel.settings import (
    Ledger,
    Restored,
    patiently,
    read_setting,
    read_setting_or_none,
    write_setting,
)

MODULES = ("damon_stat", "damon_reclaim", "damon_lru_sort")
"""Start contexts that exclude others (damon_start, mm/damon/core.c). 7.2 and later have the first one on."""

NAME: Final = "DAMON"
EVENT_PREFIX: Final = f"{NAME}."
STATE_PREFIX: Final = "damon_state."
TARGET_PREFIX: Final = "damon_target."
"""The source, as operators know it, and what the names of its doors begin with; tierd.kernel.doors explains
them."""

MONITORS: Final = 16
"""Processes watched at most. Each costs up to REGIONS looks, of about a microsecond each, in INTERVAL."""
INTERVAL: Final = 0.1
"""Seconds between two looks at a region."""
LOOKS: Final = 20
"""Looks of each report. With INTERVAL, the 2 s that design.rst says to begin with: the kernel's own default,
0.1 s, is too short in many cases."""
REGIONS: Final = (100, 1000)
"""Fewest and most of each process. The most are the kernel's default. The fewest are ten times that, since
they are what it begins with: it has found what is hot three reports sooner."""

_NUMBER: Final = "nr_kdamonds"
_TARGET: Final = "contexts/0/targets/0/pid_target"


def damon_trouble(root: Root) -> str:
    """Why DAMON cannot be used here, in words; empty when nobody uses it. Reads only. Called by the daemon,
    whose CAP_DAC_READ_SEARCH reads what belongs to root, and by the helper."""
    try:
        tree = read_text(root.damon / _NUMBER).strip()
    except GoneError:
        return "this kernel has no DAMON"
    except TierdError as error:
        return str(error)
    users = [module for module in MODULES if _enabled(root, module)]
    if tree != "0":
        users.append(f"somebody's {tree} kdamonds" if tree != "1" else "somebody's kdamond")
    return f"in use by {' and '.join(users)}" if users else ""


def _enabled(root: Root, module: str) -> bool:
    try:
        return read_text(root.modules / module / "parameters/enabled").strip() in ("Y", "y", "1")
    except TierdError:
        return False


def set_up_monitors(root: Root, ledger: Ledger) -> None:
    """Make the monitors, none of them running. Called by the helper, when `damon_trouble` has none. Raises
    TierdError; what was made is then in the ledger, for `give_back`."""
    ledger.set(root.damon / _NUMBER, str(MONITORS))
    for path, value in _settings():
        for number in range(MONITORS):
            write_setting(root.damon / str(number) / path, value)


def _settings() -> Iterator[tuple[str, str]]:
    """Files of each monitor, in the order in which they come to be."""
    context = "contexts/0"
    yield "contexts/nr_contexts", "1"
    yield f"{context}/operations", "vaddr"
    intervals = f"{context}/monitoring_attrs/intervals"
    yield f"{intervals}/sample_us", str(round(INTERVAL * 1e6))
    yield f"{intervals}/aggr_us", str(round(INTERVAL * 1e6) * LOOKS)
    # new memory is found as soon as there is a report
    yield f"{intervals}/update_us", str(round(INTERVAL * 1e6) * LOOKS)
    least, most = REGIONS
    # as it is now, the fewest must not exceed the most, nor the most fall below the fewest
    yield f"{context}/monitoring_attrs/nr_regions/max", str(most)
    yield f"{context}/monitoring_attrs/nr_regions/min", str(least)
    yield f"{context}/targets/nr_targets", "1"


def monitor_doors(root: Root) -> dict[str, Path]:
    """What the daemon writes to, by the names of the doors."""
    return {
        f"{prefix}{number}": root.damon / str(number) / path
        for number in range(MONITORS)
        for prefix, path in ((STATE_PREFIX, "state"), (TARGET_PREFIX, _TARGET))
    }


def in_service(ledger: Ledger) -> bool:
    """Whether the daemon looks through monitors of ours: one of them has been told of a process. Called by
    the helper once the daemon is ready."""
    return any(
        read_setting_or_none(target) not in (None, "0")
        for tree in _trees(ledger)
        for target in tree.glob(f"[0-9]*/{_TARGET}")
    )


def give_back(ledger: Ledger) -> tuple[Restored, ...]:
    """Stop what runs of ours, without which the kernel does not let go of it, and take it away. Called by
    the helper at start, for what a crash left; when the daemon is ready and has chosen another source; and
    before settings are put back. Raises OSError for the ledger.

    Only when the number of monitors is still the one that tierd has set: else they are somebody's by now.
    """
    for tree in _trees(ledger):
        for state in sorted(tree.glob("[0-9]*/state")):
            if read_setting_or_none(state) != "off":
                with contextlib.suppress(TierdError):
                    write_setting(state, "off")
    numbers = [Path(record.path) for record in ledger.records if Path(record.path).name == _NUMBER]
    return tuple(result for number in numbers for result in ledger.restore_all(number))


def _trees(ledger: Ledger) -> Iterator[Path]:
    """The directory of our monitors, where it is still ours."""
    for record in ledger.records:
        path = Path(record.path)
        if path.name == _NUMBER and read_setting_or_none(path) == record.value:
            yield path.parent


class Monitor:
    """One of the monitors, through its doors. Used by kernel/damon_regions.py."""

    def __init__(self, root: Root, number: int, state: int, target: int) -> None:
        self._pid = root.damon / str(number) / "pid"
        self._state = state
        self._target = target

    def start(self, process: int) -> None:
        """Watch `process`. Raises OSError: ESRCH when there is no such process, EBUSY when somebody else has
        taken DAMON."""
        self._write(self._target, str(process))
        try:
            self._write(self._state, "on")
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from error
            raise

    def stop(self) -> None:
        """Also when it has stopped by itself, as it does when its process ends."""
        self._write_if_there(self._state, "off")

    def release(self) -> None:
        """Watch nobody any more, after `stop`: `in_service` goes by it."""
        self._write_if_there(self._target, "0")

    @property
    def thread(self) -> int:
        """The process number under which it reports; 0 when it does not run, or does not say."""
        try:
            return max(0, int(read_setting(self._pid)))
        except (TierdError, ValueError):
            return 0

    def _write_if_there(self, descriptor: int, value: str) -> None:
        try:
            self._write(descriptor, value)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL, errno.ENODEV):
                raise

    def _write(self, descriptor: int, value: str) -> None:
        try:
            patiently(lambda: os.pwrite(descriptor, f"{value}\n".encode("ascii"), 0))
        except OSError as error:
            raise OSError(error.errno, error.strerror, "DAMON") from None
