"""The command tierd: the daemon, and the check of its policy. Heavy imports wait until they are needed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tierd import __version__
from tierd.config import load
from tierd.core.state import MissingFeature
from tierd.errors import ConfigError, DeniedError, TierdError

if TYPE_CHECKING:
    from collections.abc import Mapping

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_TEMPORARY = 75

LOCK_PATH = Path("/run/tierd/daemon.lock")
CAP_SYS_PTRACE = 19  # include/uapi/linux/capability.h

EPILOG = """\
Started by tierd.service; 'tierctl status' shows what it does.

Exit status: 0 stopped as asked; 1 failed; 2 wrong arguments; 75 cannot run now, try again;
77 not permitted; 78 the policy cannot be used.
"""


def parser() -> argparse.ArgumentParser:
    """The command line. Separate, so that documentation can be made from it."""
    found = argparse.ArgumentParser(
        prog="tierd",
        description="Place the memory of chosen processes: hot pages in DRAM, cold ones in slower tiers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument(
        "--policy",
        type=Path,
        metavar="PATH",
        help="that policy file alone (default: the policy in force, tierd.yaml(5))",
    )
    found.add_argument(
        "--check-config",
        nargs="?",
        type=Path,
        const=True,
        default=False,
        metavar="PATH",
        help="check that policy, or the one that would be used, print every problem, and exit with 0 or 78",
    )
    found.add_argument("--version", action="version", version=f"tierd {__version__}")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of /usr/bin/tierd. Returns the exit code. What keeps the daemon from starting is an event
    in the journal where systemd has started it; other expected failures are one line on stderr."""
    fail = _fail
    try:
        arguments = parser().parse_args(argv)
        if arguments.check_config is not False:
            from tierd.config.check import check

            return check(arguments.policy if arguments.check_config is True else arguments.check_config)
        fail = _fail_start
        return run(arguments.policy)
    except ConfigError as error:
        return fail(*error.problems, code=error.exit_code)
    except TierdError as error:
        return fail(f"tierd: {error}" + (f"; {error.hint}" if error.hint else ""), code=error.exit_code)
    except ImportError as error:
        hint = "install the Debian packages python3-gi, python3-pydbus, python3-systemd and python3-numpy"
        return fail(f"tierd: a library is missing: {error}; {hint}", code=EXIT_FAILED)
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, before the loop took over the signal
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        from tierd.service.worker import describe

        return fail(f"tierd: internal error: {describe(error)}", code=EXIT_FAILED)


def _fail(*lines: str, code: int) -> int:
    from tierd.core.text import clean

    for line in lines:
        print(clean(line, 1024), file=sys.stderr)
    return code


def _fail_start(*lines: str, code: int) -> int:
    try:
        from tierd.service.events import start_failed
        from tierd.service.journal import to_journal, writes_to_journal
        from tierd.service.notify import Notifier

        if not writes_to_journal():
            return _fail(*lines, code=code)
        event = start_failed(tuple(line.removeprefix("tierd: ") for line in lines), code)
        to_journal(event)
        Notifier().failed(event.message)
    except ImportError:  # the libraries may be what is missing
        return _fail(*lines, code=code)
    return code


def run(policy_path: Path | None) -> int:
    """Run the daemon until it is stopped, by the policy in force or by that file alone. Raises TierdError
    for what keeps it from starting."""
    policy = load(policy_path)
    # First: systemd's descriptors are ours from here on, and must not leak into anything imported later.
    from tierd.service.notify import Notifier, stored_descriptors
    from tierd.service.protection import ProtectionTrigger

    doors = stored_descriptors()
    _check_permission(doors)
    lock = _lock()

    from tierd.kernel.paths import Root
    from tierd.service.assembly import create_engine
    from tierd.service.daemon import Daemon
    from tierd.service.devices import read_notices
    from tierd.service.helper import Settings, read_missing, read_report
    from tierd.service.journal import Reporter, capture_logging, default_sink
    from tierd.service.keeping import take_left

    keeper = take_left(Root(), doors)
    report = read_report()
    missing = report.missing
    if not doors and not missing:
        missing = (
            MissingFeature(
                "descriptors from the root helper",
                "tierd has no way to age, split or sample, and only looks",
                "start tierd as tierd.service",
            ),
        )
    daemon = Daemon(
        policy,
        create_engine(policy, doors, missing, keeper),
        load=lambda: load(policy_path),
        reporter=Reporter(default_sink()),
        notifier=Notifier(),
        restart_when_tiered=report.settings is Settings.NOT_NEEDED,
        read_missing=read_missing,
        read_notices=read_notices,
        protect=ProtectionTrigger().update,
        keep=keeper.keep,
    )
    capture_logging(daemon.report)
    try:
        return daemon.run()
    finally:
        if lock is not None:
            os.close(lock)


def _check_permission(doors: Mapping[str, int]) -> None:
    from tierd.kernel.paths import Root

    try:
        status = (Root().proc / "self/status").read_text(encoding="ascii", errors="replace")
        effective = next(
            int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")
        )
    except (OSError, ValueError, IndexError, StopIteration):
        return  # the kernel will say so itself
    if not effective >> CAP_SYS_PTRACE & 1 and not doors:
        raise DeniedError(
            "may not look at other users' processes (CAP_SYS_PTRACE)",
            hint="start it with 'systemctl start tierd'; 'tierd --check-config' works without",
        )


def _lock() -> int | None:
    """Keep a second daemon out, whether or not there is a bus. Raises TierdError when one runs."""
    import fcntl

    try:
        # Made by tmpfiles.d, owned by root: a reader's descriptor is enough to lock it.
        descriptor = os.open(LOCK_PATH, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None  # not installed; the name on the bus is the second guard
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        error = TierdError("another tierd is running", hint="'systemctl status tierd' shows it")
        error.exit_code = EXIT_TEMPORARY
        raise error from None
    return descriptor


if __name__ == "__main__":
    sys.exit(main())
