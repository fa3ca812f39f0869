"""Every kernel setting that tierd might touch, read in the guest: the witness that it puts all of them
back."""

from __future__ import annotations

from tests.vm.guest import Guest

_PLACES = (
    "/proc/sys/kernel/numa_balancing*",
    "/proc/sys/vm/*",
    "/proc/sys/kernel/perf_event_*",
    "/sys/kernel/mm/numa/*",
    "/sys/kernel/mm/lru_gen/*",
    "/sys/kernel/mm/transparent_hugepage/*",
    "/sys/kernel/mm/transparent_hugepage/khugepaged/*",
    "/sys/kernel/debug/sched/numa_balancing/*",
    "/sys/devices/system/memory/auto_online_blocks",
    "/sys/module/damon_*/parameters/enabled",
    "/sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds",
)
_COUNTERS = ("stat_refresh", "pages_collapsed", "full_scans")
"""Files in those places that count or act, and are no settings."""


def kernel_settings(guest: Guest) -> dict[str, str]:
    """The settings by path; those that cannot be read, or that a read changes, are left out."""
    unwanted = " ".join(f"! -name {name}" for name in _COUNTERS)
    text = guest.output(
        f"for p in $(find {' '.join(_PLACES)} -maxdepth 0 -type f -readable {unwanted} 2>/dev/null); do "
        'v=$(cat "$p" 2>/dev/null) && printf "%s\\t%s\\n" "$p" "$(echo $v)"; done'
    )
    pairs = (line.partition("\t") for line in text.splitlines())
    return {path: value for path, _, value in pairs}
