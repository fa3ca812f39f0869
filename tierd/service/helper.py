"""The root helper: opens the doors and sets the kernel up before the daemon starts, and puts all back after.

Run by tierd.service as root: ``ExecStartPre=+... helper open``, ``ExecStartPost=+... helper begin`` once the
daemon reads the rings, and ``ExecStopPost=+... helper restore``. The daemon finds the descriptors among
those systemd passes it (tierd.kernel.doors has the names). What could not be opened or set is in doors.json,
which `read_missing` and `read_report` read.

The policy is not read here: what differs between observing and placing, the daemon sets through its doors,
so that a reload can change it.

Kept light on purpose (no numpy, no GLib): it is in the way of every start.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from enum import IntEnum, StrEnum
from pathlib import Path

from tierd.core.model import Topology
from tierd.core.state import MissingFeature
from tierd.errors import GoneError, MalformedError, TierdError, in_words
from tierd.kernel import doors as doors_module
from tierd.kernel.damon import give_back, in_service
from tierd.kernel.paths import Root
from tierd.kernel.scanning import SCAN_DOORS
from tierd.kernel.settings import (
    DEFAULT_PATH,
    Ledger,
    Outcome,
    read_setting,
    read_setting_or_none,
    write_whole,
)
from tierd.kernel.topology import read_topology
from tierd.service.descriptor_store import store_descriptors
from tierd.service.events import EventType, Priority
from tierd.service.journal import writes_to_journal
from tierd.service.one_shot import say

LEFT = EventType("setting-left", "5838b9872cab4bc9ae10cf601416e6fe", Priority.WARNING)
EVENT_TYPES = (LEFT,)

DOORS_PATH = DEFAULT_PATH.with_name("doors.json")
TIERING_BIT = 2
"""NUMA_BALANCING_MEMORY_TIERING in kernel.numa_balancing (include/linux/sched/sysctl.h)."""

TIERING_CONFLICT = "kernel tiering is on and not ours"
"""MissingFeature.feature when somebody else uses kernel.numa_balancing=2: the daemon then only observes."""

_WITHOUT = {
    "numa_balancing": "there are no hint faults: tierd places by a lesser source, or not at all",
    "promote_rate_limit": "the kernel promotes by itself beside tierd",
    "generations_enabled": "cold pages cannot be told from warm ones, so no room is made in DRAM",
}
_REMEDY = {
    "numa_balancing": "boot a kernel built with CONFIG_NUMA_BALANCING",
    "promote_rate_limit": "boot kernel 6.1 or later with CONFIG_NUMA_BALANCING",
    "generations_enabled": "boot a kernel built with CONFIG_LRU_GEN",
}


class Exit(IntEnum):
    """Exit status of the helper."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_ROOT = 77


class Settings(StrEnum):
    """What `open` did to the kernel's settings.

    failed: nothing was touched, since it could not be written down, or the helper has not run. applied: they
    are as the engine needs them. not-needed: one memory tier only, so nothing was touched. conflict:
    somebody else has the kernel tiering, so nothing was touched.
    """

    FAILED = "failed"
    APPLIED = "applied"
    NOT_NEEDED = "not-needed"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Report:
    """doors.json: names of the descriptors stored, the settings' state, and what is missing."""

    doors: tuple[str, ...] = ()
    settings: Settings = Settings.FAILED
    missing: tuple[MissingFeature, ...] = ()


def read_report(path: Path = DOORS_PATH) -> Report:
    """What the helper left for the daemon. That it cannot be read is a MissingFeature, not an exception."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Report(
            tuple(str(name) for name in document["doors"]),
            Settings(document["settings"]),
            tuple(MissingFeature(**entry) for entry in document["missing"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is damaged"
        return Report(
            missing=(
                MissingFeature(
                    f"the root helper's report ({path}: {reason})",
                    "tierd has no way to age, split or sample, and only looks",
                    "start tierd as tierd.service, whose ExecStartPre= runs the helper",
                ),
            )
        )


def read_missing(path: Path = DOORS_PATH) -> tuple[MissingFeature, ...]:
    """Only the missing features of `read_report`. Called by the daemon when `begin` has run."""
    return read_report(path).missing


def apply_settings(root: Root, ledger: Ledger) -> tuple[Settings, tuple[MissingFeature, ...]]:
    """Set the kernel up for tierd, every change in the ledger first; all but what `begin` does.

    Raises nothing for a setting, MalformedError for a topology that cannot be read, OSError for the ledger.

    On a machine with one tier, and where somebody else has the kernel tiering, everything of ours is put
    back instead.
    """
    mode = _number(read_setting_or_none(root.numa_balancing))
    if _is_foreign(mode, root, ledger):
        ledger.restore_all()
        loss = "tierd would fight whoever promotes pages already, so it only observes"
        return Settings.CONFLICT, (_conflict(mode, loss),)
    if not _read_topology(root).tiered:
        ledger.restore_all()
        return Settings.NOT_NEEDED, ()
    missing: list[MissingFeature] = []
    # What the daemon sets through its doors: how hard to look, and demotion, in the mode that moves pages.
    for path in (*(root.scan_settings / name for name in SCAN_DOORS), root.demotion_enabled):
        _attempt(ledger.remember, path)
    # without the mode the kernel promotes nothing, and has no limit either
    wanted = [] if mode is None else [("promote_rate_limit", root.promote_rate_limit, "0")]
    if _number(read_setting_or_none(root.generations_enabled)) == 0:
        wanted.append(("generations_enabled", root.generations_enabled, "0x0007"))
    for name, path, value in wanted:
        error = _attempt(ledger.set, path, value)
        if error is not None:
            missing.append(_unset(name, error))
    if mode is None:
        missing.append(_unset("numa_balancing", GoneError(f"{root.numa_balancing} does not exist")))
    return Settings.APPLIED, tuple(missing)


def _read_topology(root: Root) -> Topology:
    """As `read_topology`, for a second: while a node comes or goes, what is read does not fit together."""
    for _ in range(10):
        with contextlib.suppress(GoneError, MalformedError):
            return read_topology(root)
        time.sleep(0.1)
    return read_topology(root)


def begin(root: Root, ledger: Ledger, only: str = "") -> MissingFeature | None:
    """Have the kernel unmap slow pages, to see who comes, and give DAMON back, unless the daemon looks
    through DAMON. What is missing when the kernel does not, unless `open` has named that already. Raises
    OSError for the ledger.

    only: the one source that may be used, empty when all may.

    After all else, and only when the daemon reads the rings: what is unmapped before faults unseen, and the
    cold pages that fault later then seem to be the first ones, which are the hottest.
    """
    if in_service(ledger):
        return None
    give_back(ledger)
    mode = _number(read_setting_or_none(root.numa_balancing))
    if mode is None or only not in ("", doors_module.HINT_FAULTS):
        return None  # named by `open`, or of no use
    if _is_foreign(mode, root, ledger):  # somebody else was quicker, and keeps it
        return _conflict(mode, "whoever set it promotes pages beside tierd, until the next start of tierd")
    error = _attempt(ledger.set, root.numa_balancing, str(mode | TIERING_BIT))
    return None if error is None else _unset("numa_balancing", error)


def _is_foreign(mode: int | None, root: Root, ledger: Ledger) -> bool:
    """Whether somebody else has the kernel tiering."""
    return bool((mode or 0) & TIERING_BIT) and not ledger.holds(root.numa_balancing)


def _conflict(mode: int | None, loss: str) -> MissingFeature:
    return MissingFeature(
        f"{TIERING_CONFLICT} (kernel.numa_balancing is {mode})",
        loss,
        "find who sets it (sysctl.d, tuned, another tiering daemon), then"
        f" sysctl kernel.numa_balancing={(mode or 0) & ~TIERING_BIT} and systemctl restart tierd",
    )


def _unset(name: str, error: TierdError) -> MissingFeature:
    """What the setting `name` is missed for."""
    remedy = _REMEDY[name] if isinstance(error, GoneError) else "let root write it"
    return MissingFeature(str(error), _WITHOUT[name], remedy)


def open_command(root: Root, ledger_path: Path, report_path: Path) -> Exit:
    """`helper open`: debugfs, settings, doors, descriptor store, report, in that order."""
    missing: list[MissingFeature] = []
    previous = read_report(report_path).doors
    ledger = None
    doors_module.mount_debugfs(root)  # before the old values in there are read; `open_doors` names a failure
    try:
        written = Ledger(ledger_path)
        give_back(written)  # what a crash left
        settings, lacking = apply_settings(root, written)
        missing += lacking
        if settings is Settings.APPLIED:
            ledger = written
    except (TierdError, OSError) as error:
        settings = Settings.FAILED
        missing.append(
            MissingFeature(
                f"kernel settings ({in_words(error)})",
                "none is changed, so hint faults and demotion are as the kernel has them",
                getattr(error, "hint", "") or "remove the cause and restart tierd.service",
            )
        )
    doors, closed = doors_module.open_doors(root, written_down=ledger.holds if ledger else None)
    missing += closed
    if ledger:
        only = os.environ.get(doors_module.SOURCE_VARIABLE, "")
        closed_too = doors_module.open_monitors(root, doors, ledger, only)
        missing += [closed_too] if closed_too else []
    if not store_descriptors(doors, previous):
        missing.append(
            MissingFeature(
                "systemd's descriptor store",
                "the daemon does not get the files that only root may open",
                "start tierd as tierd.service, with NotifyAccess= and FileDescriptorStoreMax= as shipped",
            )
        )
    try:
        write_report(report_path, Report(tuple(doors), settings, tuple(missing)))
    except OSError as error:
        _say(4, f"the daemon does not hear what is open: {in_words(error)}")
        with contextlib.suppress(OSError):
            report_path.unlink()  # one of an earlier run
    for feature in missing:
        _say(6, f"missing: {feature}")  # a warning of the daemon's, which reads the report
    _say(6, f"{len(doors)} doors open, kernel settings {settings.value}")
    return Exit.OK


def begin_command(root: Root, ledger_path: Path, report_path: Path) -> Exit:
    """`helper begin`: the balancing mode or DAMON, where `open` has set up the rest.

    Never fails: systemd would take that for a failure of the unit, and start it again and again.
    """
    report = read_report(report_path)
    if report.settings is not Settings.APPLIED:
        return Exit.OK
    try:
        missing = begin(root, Ledger(ledger_path), os.environ.get(doors_module.SOURCE_VARIABLE, ""))
    except (TierdError, OSError) as error:
        missing = MissingFeature(
            f"kernel.numa_balancing ({in_words(error)})",
            _WITHOUT["numa_balancing"],
            getattr(error, "hint", "") or "remove the cause and restart tierd.service",
        )
    if missing is not None:
        _say(6, f"missing: {missing}")
        try:
            write_report(report_path, replace(report, missing=(*report.missing, missing)))
        except OSError as error:
            _say(4, f"the daemon does not hear of {missing}: {in_words(error)}")
    return Exit.OK


def restore_command(ledger_path: Path, report_path: Path) -> Exit:
    """`helper restore`: every setting back, the descriptors out of systemd's store, the report removed.

    The settings first: nothing that fails after them leaves the kernel changed.
    """
    try:
        ledger = Ledger(ledger_path)
        results = (*give_back(ledger), *ledger.restore_all())
    finally:
        _forget_doors(report_path)
    for result in results:
        if result.outcome in (Outcome.FAILED, Outcome.FOREIGN):
            say(LEFT, str(result), {"TIERD_SETTING": result.path})
        else:
            _say(6, str(result))
    return Exit.FAILED if any(result.outcome is Outcome.FAILED for result in results) else Exit.OK


def _forget_doors(report_path: Path) -> None:
    """Drop the descriptors, then the report; it stays when they do, so that the next `open` drops them."""
    try:
        store_descriptors({}, read_report(report_path).doors)
        report_path.unlink(missing_ok=True)
    except (ImportError, OSError) as error:
        _say(4, f"the descriptors or {report_path} are left behind: {in_words(error)}")


def show_command(ledger_path: Path, report_path: Path) -> Exit:
    """`helper show`: the ledger and the report, for people."""
    records = Ledger(ledger_path).records
    if not records:
        print("no kernel setting is changed")
    for record in records:
        try:
            now = read_setting(Path(record.path))
        except TierdError as error:
            now = str(error)
        ours = "the daemon's" if record.value is None else record.value
        print(f"{record.path}: was {record.before}, set to {ours}, now {now}")
    if not report_path.exists():
        print("tierd.service is not running")
        return Exit.OK
    report = read_report(report_path)
    print(f"kernel settings: {report.settings.value}")
    print(f"doors: {' '.join(report.doors) or 'none'}")
    for feature in report.missing:
        print(f"missing: {feature}")
    return Exit.OK


def write_report(path: Path, report: Report) -> None:
    """doors.json, mode 0644, replaced whole. Raises OSError."""
    write_whole(path, json.dumps(asdict(report), indent=1) + "\n")


def _attempt(action: Callable[..., None], *arguments: object) -> TierdError | None:
    try:
        action(*arguments)
    except TierdError as error:
        return error
    return None


def _number(text: str | None) -> int | None:
    try:
        return None if text is None else int(text, 0)
    except ValueError:
        return None


def _say(priority: int, text: str) -> None:
    """A line for the journal with its syslog priority (sd-daemon(3)), or a plain one for a terminal."""
    prefix = f"<{priority}>" if writes_to_journal() else ""
    for line in _lines(text):
        print(f"{prefix}tierd-helper: {line}", file=sys.stderr, flush=True)


def _lines(text: str) -> Iterator[str]:
    yield from (line for line in text.splitlines() if line)


def main(argv: list[str] | None = None) -> int:
    """`python3 -m tierd.service.helper open|begin|restore|show`. Returns an Exit."""
    parser = argparse.ArgumentParser(
        prog="tierd-helper",
        description="Open privileged kernel files for tierd, set the kernel up, and put it back.",
        epilog="Exit status: 0 done, 1 a setting could not be put back, 2 usage, 77 not root.",
    )
    parser.add_argument("command", choices=("open", "begin", "restore", "show"))
    parser.add_argument("--ledger", type=Path, default=DEFAULT_PATH, help="default: %(default)s")
    parser.add_argument("--report", type=Path, default=DOORS_PATH, help="default: %(default)s")
    arguments = parser.parse_args(argv)
    if arguments.command != "show" and os.geteuid() != 0:
        _say(3, f"{arguments.command} must run as root; tierd.service does so")
        return Exit.NOT_ROOT
    try:
        match arguments.command:
            case "open":
                return open_command(Root(), arguments.ledger, arguments.report)
            case "begin":
                return begin_command(Root(), arguments.ledger, arguments.report)
            case "restore":
                return restore_command(arguments.ledger, arguments.report)
            case _:
                return show_command(arguments.ledger, arguments.report)
    except (TierdError, OSError) as error:
        _say(3, in_words(error))
        return Exit.FAILED


if __name__ == "__main__":
    sys.exit(main())
