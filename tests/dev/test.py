"""`./dev test`: the rings, from the fastest to the one that boots a server, and one line that sums up."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from tests.vm import host, image

MOST_SERVERS = 2
"""At once: each keeps a processor busy, and its tests wait for what others make slow."""
SERVER_BYTES = 6 << 30
"""Memory of a server with all of its NVDIMM in use, and of QEMU itself."""


@dataclass(frozen=True)
class Ring:
    """One ring: where its tests are, and the seconds after which it is ended as hung. spread: how its tests
    run in several processes at once ("load": each by itself, "loadscope": those of one module or one server
    together), if they do. waits: its tests wait more than they work, so that a processor takes several."""

    name: str
    paths: tuple[str, ...]
    deadline: float
    says: str
    verbose: bool = False
    spread: str = ""
    waits: bool = False


RINGS = (
    Ring(
        "lint",
        ("tests/test_linters.py", "tests/test_architecture.py"),
        300,
        "style, types, import directions",
    ),
    Ring(
        "pure",
        ("tests",),
        600,
        "decisions, policy, kernel readers on recorded trees, command line",
        spread="load",
    ),
    Ring(
        "provisioning",
        ("tests/provisioning",),
        900,
        "requests carried out on simulated machines whose tools lie and die",
        spread="load",
    ),
    Ring(
        "service",
        ("tests/service",),
        600,
        "the daemon on a private message bus",
        spread="loadscope",
        waits=True,
    ),
    Ring(
        "vm",
        ("tests/vm",),
        3600,
        "the installed package on a whole server, by kernel",
        verbose=True,
        spread="loadscope",
    ),
)


@dataclass(frozen=True)
class Counts:
    """What a ring's tests came to."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)


def main(argv: list[str]) -> int:
    """Called by `./dev test`; exit code 1 when any test failed, or any ring had none to run."""
    parser = argparse.ArgumentParser(
        prog="./dev test",
        description="Run the rings: " + "; ".join(f"{ring.name} ({ring.says})" for ring in RINGS) + ".",
        epilog="What follows `--` goes to pytest: ./dev test pure -- -k heat",
    )
    parser.add_argument(
        "what", nargs="*", metavar="RING|PATH", help="rings, or test files (default: every ring)"
    )
    parser.add_argument(
        "--kernel",
        action="append",
        choices=image.kernel_names(earlier=True),
        help="boot only this kernel in the ring vm (may be repeated)",
    )
    parser.add_argument("--slow", action="store_true", help="run the tests marked slow too")
    own, extra = _split(argv)
    asked = parser.parse_args(own)
    names = {ring.name: ring for ring in RINGS}
    rings = [names[word] for word in asked.what if word in names]
    paths = tuple(word for word in asked.what if word not in names)
    for path in paths:
        if not (host.ROOT / path.split("::")[0]).exists():
            parser.error(f"{path} is neither a ring ({', '.join(names)}) nor a file")
    if paths:
        rings.append(Ring("files", paths, 1500, ", ".join(paths), verbose=True))
    host.prepare()
    for kernel in asked.kernel or ():
        extra += ["--kernel", kernel]
    if asked.slow:
        extra.append("--slow")
    total, broken = Counts(), []
    for ring in rings or RINGS:
        counts, code = _run(ring, extra)
        total += counts
        if code:
            broken.append(ring.name)
    skipped = f", {total.skipped} skipped" if total.skipped else ""
    if broken:
        host.say(f"not passed: {', '.join(broken)}")
    # Whatever ended a ring without a failed test (no tests, a hang, a crash) must not read as a success.
    failed = max(total.failed, len(broken))
    print(f"{total.passed} passed, {failed} failed{skipped}", flush=True)
    return 1 if broken else 0


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    if "--" in argv:
        at = argv.index("--")
        return argv[:at], argv[at + 1 :]
    return argv, []


def _run(ring: Ring, extra: list[str]) -> tuple[Counts, int]:
    last = _seconds().get(ring.name)
    usual = f"{last:.0f} s the last time, " if last else ""
    host.say(f"ring {ring.name}: {ring.says} ({usual}ended as hung after {ring.deadline:.0f} s)")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tierd-test-") as scratch:
        report = Path(scratch) / "report.xml"
        command = [
            *(str(host.venv_python()), "-m", "pytest", f"--junitxml={report}", "-o", "junit_family=xunit2"),
            *(["-v", "--durations=5"] if ring.verbose else ["-q"]),
            *(_outside_pure() if ring.name == "pure" else ()),
            *_processes(ring),
            *(*extra, *ring.paths),
        ]
        process = subprocess.Popen(
            command, cwd=host.ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"}, stdin=subprocess.DEVNULL
        )
        try:
            code = process.wait(ring.deadline)
        except subprocess.TimeoutExpired:
            host.say(f"ring {ring.name} is not done after {ring.deadline:g} s: ended")
            code = _end(process)
        except BaseException:
            _end(process)
            raise
        counts = _counts(report)
    took = time.monotonic() - started
    host.say(f"ring {ring.name}: {'passed' if code == 0 else 'FAILED'} after {took:.0f} s")
    if code == 0 and ring in RINGS and not extra:
        _times_file().write_text(json.dumps({**_seconds(), ring.name: round(took, 1)}))
    return counts, code


def _processes(ring: Ring) -> tuple[str, ...]:
    if not ring.spread:
        return ()
    most = (os.cpu_count() or 1) + ring.waits
    if ring.name == "vm":
        found = re.search(r"^MemAvailable: +([0-9]+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        most = min(most, MOST_SERVERS, max(1, (int(found[1]) << 10) // SERVER_BYTES if found else 1))
    return ("-n", str(most), "--dist", ring.spread)


def _times_file() -> Path:
    return host.cache_dir() / "ring-seconds.json"


def _seconds() -> dict[str, float]:
    """How long each ring took when it last passed whole on this machine, where that is known."""
    try:
        return {str(name): float(took) for name, took in json.loads(_times_file().read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _outside_pure() -> list[str]:
    others = [path for ring in RINGS if ring.name != "pure" for path in ring.paths]
    return [f"--ignore={path}" for path in others]


def _end(process: subprocess.Popen[bytes]) -> int:
    """End pytest so that its fixtures still power their guests off: interrupted, then killed."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return process.returncode or 1


def _counts(report: Path) -> Counts:
    if not report.is_file():
        return Counts()
    total = Counts()
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        tests, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        total += Counts(tests - failed - skipped, failed, skipped)
    return total
