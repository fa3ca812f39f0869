"""A case: something goes wrong while tierd is at work, and the server and its processes are none the worse.

Every witness is outside tierd: the kernel's accounts and its log, systemd, the journal, and memory that
checks itself. A case of which nothing was seen to happen, or after which tierd places nothing, does not
hold.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from tests.verify.service_rows import placing
from tests.verify.settings import kernel_settings
from tests.verify.table import Figure, Row, Stage
from tests.vm import scenario
from tests.vm.guest import Guest, GuestError, Region
from tests.vm.test_service import Service
from tests.vm.test_settings import BALANCING, Server

MIB = 1 << 20
BAR = "it happens, it is got over, and nothing that may never be"

UNITS = ("load", "probe", "checked", "other")
"""What tierd places: the load, one that begins after each case, memory that checks itself, and what a case
brings along."""
BYSTANDERS = ("load", "checked")
CHECKED_MIB = 100
CHECKED = "/run/checked"
PROBE_MIB, PROBE_HOT_MIB = 80, 40
COMES_UP = 16 * MIB
"""Of what a process begins with on the slow tier: then tierd is at work."""
WITHIN = 150
"""Seconds for that."""
HUNG_SECONDS = 20
"""A task that waits for longer in the kernel counts as hung. The kernel's own limit is 120 s."""
DESCRIPTORS, GROWTH = 3, 8 * MIB
"""That the daemon may hold more after a case than before it: what it knows of new processes is no leak."""
LINES_A_MINUTE = 100

CORRUPTED, KILLED, HUNG, OOM, ZONE, TRACEBACKS, FORGED, WRONG, LOST, AUTHORISATION = NEVER = (
    "application bytes corrupted",
    "bystanders killed",
    "hung tasks",
    "OOM kills caused",
    "memory blocks outside ZONE_MOVABLE",
    "tracebacks in the journal",
    "forged lines in the journal",
    "conversions of another namespace",
    "file systems lost",
    "answers on the bus that are not as the table has them",
)
"""What may never be, whatever goes wrong."""

Counts = Mapping[str, tuple[int, int]]
"""By a name of NEVER: how often it was so, and of how many that were looked at."""

# The kernel's log is emptied with each look, so that a full ring loses nothing of a later case.
_LOOK = r"""
pid=$(systemctl show -P MainPID tierd)
echo pid $pid
echo restarts $(systemctl show -P NRestarts tierd)
echo seconds $(cut -d. -f1 /proc/uptime)
dmesg > /run/kernel.log; dmesg -C
echo hung $(grep -c 'blocked for more than' /run/kernel.log)
echo splats $(grep -cE 'WARNING: |BUG: |Oops|general protection' /run/kernel.log)
echo kills $(grep 'Killed process' /run/kernel.log | grep -vc '(allocator)')
echo descriptors $(ls /proc/$pid/fd 2>/dev/null | wc -l)
echo resident $(awk '/^VmRSS/ {print $2}' /proc/$pid/status 2>/dev/null)
echo checks $(cut -d' ' -f1 /run/checked.status 2>/dev/null)
echo bad $(cut -d' ' -f2 /run/checked.status 2>/dev/null)
echo alive $(systemctl is-active BYSTANDERS | grep -c '^active')
blocks=$(grep -lx online /sys/devices/system/node/node1/memory[0-9]*/state 2>/dev/null)
echo blocks $(echo $blocks | wc -w)
echo stray $(for b in $blocks; do cat ${b%state}valid_zones; done | grep -vc '^Movable')
"""


@dataclass(frozen=True)
class Seen:
    """What a case came to. happened: how often what goes wrong was seen to, outside tierd. faults: what was
    not as promised. text: what else there is to say. never: what the case itself counted of NEVER."""

    happened: int
    faults: Sequence[str] = ()
    text: str = ""
    never: Counts = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """name: of its row. catalogue: what it is of, by the name of the row in the catalogue of failures.
    promise: in a sentence. play: makes it happen, and mends it. restarts: of the daemon by systemd that are
    right; None where `play` looks at them itself. long: only with --long."""

    name: str
    catalogue: str
    promise: str
    play: Callable[[Scene], Seen]
    restarts: int | None = 0
    long: bool = False


@dataclass(frozen=True)
class Look:
    """The witnesses at one time. pid, restarts: of the daemon. seconds: since boot. hung, splats, kills:
    lines of the kernel's log since the look before, without kills of `allocator`, which cases bring along
    for that. descriptors, resident (KiB): of the daemon. checks, bad: chunks of memory that checks itself.
    alive: bystanders. blocks, stray: memory blocks of the slow node that are online, and those of them
    outside ZONE_MOVABLE."""

    pid: int
    restarts: int
    seconds: int
    hung: int
    splats: int
    kills: int
    descriptors: int
    resident: int
    checks: int
    bad: int
    alive: int
    blocks: int
    stray: int


def read_look(text: str) -> Look:
    """A number that is missing, because a file was, is 0."""
    words = dict(line.partition(" ")[::2] for line in text.splitlines())
    return Look(**{part.name: int(words.get(part.name) or 0) for part in fields(Look)})


class Scene:
    """tierd at work on a server, with processes for it to place."""

    def __init__(self, guest: Guest, region: Region) -> None:
        self.guest = guest
        self.region = region
        self.server = Server(guest)
        self.settings: dict[str, str] = {}
        """Those of the kernel before tierd was started."""
        self.playing = False
        """False at first, and after a case that did not hold: then all begins anew."""

    def policy(self, engine: str = "", more: str = "") -> str:
        """The scene's policy. engine: keys of that section. more: further sections, as YAML."""
        engine = ", ".join(part for part in ("minimum_process: 1MiB", engine) if part)
        units = [*(f"{unit}.service" for unit in UNITS), "twins.slice"]
        return scenario.policy(self.region, units=units, engine=engine) + more

    def begin(self) -> None:
        """Start all of it, and wait until pages come up."""
        self.end()
        self.settings = kernel_settings(self.guest)
        self.guest.write(scenario.POLICY, self.policy())
        self.guest.run(
            f"echo {HUNG_SECONDS} > /proc/sys/kernel/hung_task_timeout_secs;"
            " echo 100 > /proc/sys/kernel/hung_task_warnings; dmesg -C"
        )
        self.guest.put(scenario.SOURCES / "checksummed.py", f"{CHECKED}.py")
        self.guest.run(
            f"rm -f {CHECKED}.status; systemd-run --quiet --unit=checked --property=CPUQuota=20%"
            f" python3 {CHECKED}.py {CHECKED_MIB} {CHECKED}.status"
        )
        self.guest.wait_for(f"[ -s {CHECKED}.status ]", timeout=120)
        placing.start_load(self.guest)
        before = placing.in_dram(self.guest)
        self.server.start()
        placing.wait_promoted(self.guest, before)
        self.playing = True

    def end(self) -> None:
        """Stop all that the scene and its cases started."""
        self.playing = False
        self.server.no_drop_in()
        self.guest.run(f"systemctl stop tierd {' '.join(UNITS)}", check=False, timeout=180)
        self.guest.run("systemctl reset-failed", check=False)

    def stop(self, unit: str) -> None:
        self.guest.run(f"systemctl stop {unit}; systemctl reset-failed {unit}", check=False, timeout=120)

    def newcomer(self, unit: str = "probe", properties: str = "") -> int:
        """Start a process whose pages begin on the slow tier; gives its bytes in DRAM. properties: more
        arguments of systemd-run."""
        self.stop(unit)
        placing.start_load(self.guest, unit, PROBE_MIB, PROBE_HOT_MIB, properties)
        return placing.in_dram(self.guest, unit)

    def comes_up(self, unit: str = "probe", properties: str = "", within: float = WITHIN) -> float:
        """Seconds until pages of a process that begins now have come up; raises GuestError when they do
        not."""
        before, began = self.newcomer(unit, properties), time.monotonic()
        placing.wait_promoted(self.guest, before, unit, COMES_UP, within)
        return time.monotonic() - began

    def gained(self, before: int, unit: str = "probe") -> int:
        """Bytes of a newcomer that have come up."""
        return placing.in_dram(self.guest, unit) - before

    def said(self) -> set[str]:
        """What `tierctl status` says is missing, and why tierd does what it does."""
        status = self.server.status()
        return {*map(str, status.get("missing", ())), f"{status.get('state')}: {status.get('reason', '')}"}

    def counter(self, beginning: str) -> int:
        """The sum of the kernel's counters of which the names begin so."""
        return int(
            self.guest.output(f"awk '/^{beginning}/ {{s += $2}} END {{printf \"%d\", s}}' /proc/vmstat")
        )

    def look(self) -> Look:
        return read_look(self.guest.output(_LOOK.replace("BYSTANDERS", " ".join(BYSTANDERS))))


def settings_come_back(scene: Scene) -> Seen:
    """The last case of a group: whatever happened, a stop leaves no setting changed."""
    took = scene.guest.output(["cat", BALANCING]) == "2"
    before = scene.settings
    scene.end()
    after = kernel_settings(scene.guest)
    faults = [
        f"{path} is {after.get(path)}, and was {before.get(path)}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]
    scene.begin()
    return Seen(int(took), faults, f"{len(before)} settings compared")


SETTINGS = Case(
    "settings", "F6", "after a stop every kernel setting is as before the start", settings_come_back
)


def unhurt(
    before: Look, after: Look, entries: Sequence[Mapping[str, Any]], restarts: int | None
) -> list[str]:
    """What is the worse for a case, in words. entries: of tierd, in the journal, meanwhile."""
    again = after.restarts - before.restarts if after.restarts >= before.restarts else after.restarts
    held = after.pid == before.pid
    minutes = max(1.0, (after.seconds - before.seconds) / 60)
    traces = _traces(entries)
    addresses = sum(bool(_ADDRESS.search(str(entry.get("MESSAGE", "")))) for entry in entries)
    checks = {
        f"{after.hung} hung tasks": after.hung,
        f"{after.splats} warnings or bugs in the kernel's log": after.splats,
        f"{after.kills} processes killed for want of memory": after.kills,
        f"{again} restarts, not {restarts}": restarts is not None and again != restarts,
        f"{after.bad} bad chunks": after.bad,
        "memory was not checked": after.checks <= before.checks,
        f"{after.alive} of {before.alive} bystanders alive": after.alive < before.alive,
        f"{after.stray} memory blocks outside ZONE_MOVABLE": after.stray,
        f"{after.descriptors} descriptors, {before.descriptors} before": held
        and after.descriptors > before.descriptors + DESCRIPTORS,
        f"{after.resident} KiB resident, {before.resident} before": held
        and (after.resident - before.resident) * 1024 > GROWTH,
        f"{traces} tracebacks": traces,
        f"{addresses} addresses in the journal": addresses,
        f"{len(entries)} lines in {minutes:.1f} minutes": len(entries) > LINES_A_MINUTE * minutes,
    }
    return [words for words, so in checks.items() if so]


_ADDRESS = re.compile(r"\b0x[0-9a-f]{11,12}\b")
"""As those of a process's memory are on x86-64; numbers of regions are longer, sizes are decimal."""


def _traces(entries: Sequence[Mapping[str, Any]]) -> int:
    """Entries that show an operator the inside of the program."""
    return sum(
        "Traceback" in str(entry.get("MESSAGE", "")) or entry.get("TIERD_EVENT") == "internal-error"
        for entry in entries
    )


def counted(before: Look, after: Look, entries: Sequence[Mapping[str, Any]]) -> Counts:
    """What may never be, as every case looks at it."""
    return {
        CORRUPTED: (after.bad * MIB, max(0, after.checks - before.checks) * MIB),
        KILLED: (max(0, before.alive - after.alive), before.alive),
        HUNG: (after.hung, 1),
        OOM: (after.kills, 1),
        ZONE: (after.stray, after.blocks),
        TRACEBACKS: (_traces(entries), len(entries)),
    }


def added(*counts: Counts) -> dict[str, tuple[int, int]]:
    """The sum, by name, in the order of NEVER."""
    found = {name: [count[name] for count in counts if name in count] for name in NEVER}
    return {
        name: (sum(bad for bad, _ in pairs), sum(n for _, n in pairs))
        for name, pairs in found.items()
        if pairs
    }


def figure(seen: Seen, kernel: str, **values: object) -> Figure:
    """A case that nothing happened in does not hold."""
    text = "; ".join((f"happened {seen.happened} times", *filter(None, [seen.text]), *seen.faults))
    holds = seen.happened > 0 and not seen.faults and not any(bad for bad, _ in seen.never.values())
    values = {
        "kernel": kernel,
        "happened": seen.happened,
        "faults": list(seen.faults),
        "never": seen.never,
        **values,
    }
    return Figure(holds, text, values)


def row(
    name: str,
    catalogue: str,
    promise: str,
    kernel: str,
    measure: Callable[[Stage], Figure],
    *,
    long: bool = False,
) -> Row:
    """name: of the group and the case. The rest is as Case has it."""
    return Row(f"{name}-{kernel}", f"{catalogue}: {promise}, Linux {kernel}", BAR, measure, long=long)


def rows(group: str, cases: Iterable[Case], kernel: str) -> Iterator[Row]:
    """The rows of a group whose cases share one scene."""
    for case in cases:
        measure = partial(_measure, case, kernel)
        name = f"{group}-{case.name}"
        yield row(name, case.catalogue, case.promise, kernel, measure, long=case.long)


def _measure(case: Case, kernel: str, stage: Stage) -> Figure:
    guest, region = stage.ready(kernel)
    scene = stage.once(guest, lambda: Scene(guest, region))
    try:
        if not scene.playing:
            scene.begin()
        return _played(scene, case, kernel)
    except BaseException:
        stage.close()  # nobody knows in what state the server is
        raise


def _played(scene: Scene, case: Case, kernel: str) -> Figure:
    journal = Service(scene.guest)
    before = scene.look()
    seen = case.play(scene)
    faults, recovered = list(seen.faults), 0.0
    try:
        recovered = scene.comes_up()
    except GuestError as error:
        faults.append(f"tierd places nothing afterwards: {str(error).splitlines()[0]}")
    after, entries = scene.look(), journal.journal()
    faults += unhurt(before, after, entries, case.restarts)
    scene.playing = not faults
    text = "; ".join(filter(None, (seen.text, f"placing again after {recovered:.0f} s")))
    never = added(seen.never, counted(before, after, entries))
    return figure(Seen(seen.happened, faults, text, never), kernel, recovered=round(recovered, 1))
