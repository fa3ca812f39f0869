"""DAMON moving memory between two nodes by itself, with the values that damo's scripts/mem_tier.sh asks for,
written through sysfs.

Two kernel threads, each over one node's physical memory: what is not accessed leaves node 0 until half a per
cent of it is free, what is accessed in one sample of twenty or more goes up until 99.7 % of it is used. The
overlap is meant: both sides keep trickling. damo's own defaults fill in what the script does not say.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.vm.guest import Guest

ADMIN = "/sys/kernel/mm/damon/admin/kdamonds"
_MOST = str((1 << 64) - 1)
_MOST_COUNT = str((1 << 32) - 1)

Range = tuple[int, int]
"""Physical addresses, the end excluded."""


@dataclass(frozen=True)
class Scheme:
    """Memory of node `source` with an access count from `least` to `most` (of 20) is migrated to `target`
    until `metric` of node 0 is `goal`, in hundredths of a per cent. young: whether the filter lets through
    pages that were accessed since (True) or those that were not (False)."""

    source: int
    target: int
    action: str
    least: int
    most: str
    metric: str
    goal: int
    young: bool


SCHEMES = (
    Scheme(0, 1, "migrate_cold", 0, "0", "node_mem_free_bp", 50, young=False),
    Scheme(1, 0, "migrate_hot", 1, _MOST_COUNT, "node_mem_used_bp", 9970, young=True),
)


def lacking(guest: Guest) -> str:
    """What the guest's kernel lacks for it, asked of sysfs and not of the version; empty when nothing."""
    if guest.run(f"test -d {ADMIN}", check=False).returncode:
        return "the kernel has no DAMON"
    # what directories a context has shows only when there is one
    probe = (
        f"cd {ADMIN} && echo 1 > nr_kdamonds && cd 0/contexts && echo 1 > nr_contexts && cd 0 && "
        "echo 1 > schemes/nr_schemes && echo 1 > schemes/0/quotas/goals/nr_goals; "
        "test -d monitoring_attrs/intervals/intervals_goal || echo 'intervals that tune themselves (6.15)'; "
        "test -e schemes/0/quotas/goals/0/nid || echo 'goals for the memory of a node (6.16)'; "
        "test -d schemes/0/ops_filters || echo 'filters that allow (6.15)'; "
        f"cd /; echo 0 > {ADMIN}/nr_kdamonds"
    )
    missing = guest.output(probe).splitlines()
    return f"its DAMON has no {', no '.join(missing)}" if missing else ""


def start(guest: Guest) -> None:
    """Set both threads up and start them; DAMON_STAT must be off, or they cannot (EBUSY)."""
    _write(guest, [("nr_kdamonds", str(len(SCHEMES)))])
    for number, scheme in enumerate(SCHEMES):
        writes = _settings(scheme, node_ranges(guest, scheme.source))
        _write(guest, [(f"{number}/{path}", value) for path, value in writes])
    for number in range(len(SCHEMES)):
        _write(guest, [(f"{number}/state", "on")])


def stop(guest: Guest) -> None:
    """Stop the threads that run, and take all settings away."""
    running = guest.output(f"cd {ADMIN}; grep -l on [0-9]*/state || true").split()
    _write(guest, [*((path, "off") for path in running), ("nr_kdamonds", "0")])


def node_ranges(guest: Guest, node: int) -> list[Range]:
    """The node's physical memory: its online memory blocks, without the holes that firmware keeps."""
    block_size = int(guest.output("cat /sys/devices/system/memory/block_size_bytes"), 16)
    indexes = guest.output(f"cat /sys/devices/system/node/node{node}/memory*/phys_index").split()
    starts = sorted(int(index, 16) * block_size for index in indexes)
    memory = parse_memory(guest.output("cat /proc/iomem"))
    return merge(
        (max(start, begin), min(start + block_size, end))
        for start in starts
        for begin, end in memory
        if begin < start + block_size and start < end
    )


def parse_memory(iomem: str) -> list[Range]:
    """Ranges of /proc/iomem that are memory, added ones among them."""
    found = []
    for line in iomem.splitlines():
        span, _, what = line.strip().partition(" : ")
        if what.startswith("System RAM"):
            begin, end = (int(part, 16) for part in span.split("-"))
            found.append((begin, end + 1))
    return found


def merge(ranges: Iterator[Range]) -> list[Range]:
    """Ranges in order, with those that touch or overlap made one."""
    merged: list[Range] = []
    for begin, end in sorted(ranges):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def _settings(scheme: Scheme, ranges: Sequence[Range]) -> Iterator[tuple[str, str]]:
    """Files of one kernel thread, relative to its directory, in the order in which they come to be."""
    yield "contexts/nr_contexts", "1"
    context = "contexts/0"
    yield f"{context}/operations", "paddr"
    intervals = f"{context}/monitoring_attrs/intervals"
    yield f"{intervals}/sample_us", "5000"
    yield f"{intervals}/aggr_us", "100000"
    yield f"{intervals}/update_us", "1000000"
    for name, value in (
        ("access_bp", 400),
        ("aggrs", 3),
        ("min_sample_us", 5000),
        ("max_sample_us", 10_000_000),
    ):
        yield f"{intervals}/intervals_goal/{name}", str(value)
    yield f"{context}/monitoring_attrs/nr_regions/min", "10"
    yield f"{context}/monitoring_attrs/nr_regions/max", "1000"
    yield f"{context}/targets/nr_targets", "1"
    yield f"{context}/targets/0/regions/nr_regions", str(len(ranges))
    for number, (begin, end) in enumerate(ranges):
        yield f"{context}/targets/0/regions/{number}/start", str(begin)
        yield f"{context}/targets/0/regions/{number}/end", str(end)
    yield f"{context}/schemes/nr_schemes", "1"
    place = f"{context}/schemes/0"
    yield f"{place}/action", scheme.action
    yield f"{place}/target_nid", str(scheme.target)
    yield f"{place}/apply_interval_us", "1000000"
    pattern = {
        "sz": ("0", _MOST),
        "nr_accesses": (str(scheme.least), scheme.most),
        "age": ("0", _MOST_COUNT),
    }
    for name, (least, most) in pattern.items():
        yield f"{place}/access_pattern/{name}/min", least
        yield f"{place}/access_pattern/{name}/max", most
    yield f"{place}/quotas/ms", "0"
    yield f"{place}/quotas/bytes", str(200 << 20)
    yield f"{place}/quotas/reset_interval_ms", "1000"
    for weight in ("sz", "nr_accesses", "age"):
        yield f"{place}/quotas/weights/{weight}_permil", "0"
    yield f"{place}/quotas/goals/nr_goals", "1"
    yield f"{place}/quotas/goals/0/target_metric", scheme.metric
    yield f"{place}/quotas/goals/0/nid", "0"
    yield f"{place}/quotas/goals/0/target_value", str(scheme.goal)
    yield f"{place}/ops_filters/nr_filters", "1"
    yield f"{place}/ops_filters/0/type", "young"
    yield f"{place}/ops_filters/0/matching", "Y"
    yield f"{place}/ops_filters/0/allow", "Y" if scheme.young else "N"


def _write(guest: Guest, writes: Sequence[tuple[str, str]]) -> None:
    """Write the files below ADMIN, one after the other; again for a while where DAMON is busy, which it says
    at random (each file only tries for the lock)."""
    script = (
        'put() { for try in $(seq 50); do printf %s "$2" 2>/dev/null > "$1" && return; sleep 0.1; done; '
        'echo "cannot write $2 to $1" >&2; exit 1; }; '
        f"cd {ADMIN}; "
    )
    script += "; ".join(f"put {shlex.quote(path)} {shlex.quote(value)}" for path, value in writes)
    guest.run(script)
