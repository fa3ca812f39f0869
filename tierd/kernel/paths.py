"""Where the kernel's files are. The only module with literal paths below /proc, /sys and /dev."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Root:
    """A tree that looks like a machine: `/` in production, a recorded tree in tests."""

    path: Path = Path("/")

    @property
    def proc(self) -> Path:
        return self.path / "proc"

    @property
    def sys(self) -> Path:
        return self.path / "sys"

    @property
    def dev(self) -> Path:
        return self.path / "dev"

    @property
    def nodes(self) -> Path:
        return self.sys / "devices/system/node"

    @property
    def memory_tiers(self) -> Path:
        return self.sys / "devices/virtual/memory_tiering"

    @property
    def memory_blocks(self) -> Path:
        return self.sys / "devices/system/memory"

    @property
    def demotion_enabled(self) -> Path:
        return self.sys / "kernel/mm/numa/demotion_enabled"

    @property
    def boot_id(self) -> Path:
        return self.proc / "sys/kernel/random/boot_id"

    @property
    def numa_balancing(self) -> Path:
        return self.proc / "sys/kernel/numa_balancing"

    @property
    def promote_rate_limit(self) -> Path:
        return self.proc / "sys/kernel/numa_balancing_promote_rate_limit_MBps"

    @property
    def scan_settings(self) -> Path:
        return self.sys / "kernel/debug/sched/numa_balancing"

    @property
    def generations(self) -> Path:
        return self.sys / "kernel/debug/lru_gen"

    @property
    def online_cpus(self) -> Path:
        return self.sys / "devices/system/cpu/online"

    @property
    def generations_enabled(self) -> Path:
        return self.sys / "kernel/mm/lru_gen/enabled"

    @property
    def split_huge_pages(self) -> Path:
        return self.sys / "kernel/debug/split_huge_pages"

    @property
    def cgroup(self) -> Path:
        return self.sys / "fs/cgroup"

    @property
    def dax_devices(self) -> Path:
        return self.sys / "bus/dax/devices"

    @property
    def nd_devices(self) -> Path:
        return self.sys / "bus/nd/devices"

    @property
    def cxl_devices(self) -> Path:
        return self.sys / "bus/cxl/devices"

    @property
    def block_devices(self) -> Path:
        return self.sys / "class/block"

    @property
    def memory_pressure(self) -> Path:
        return self.proc / "pressure/memory"

    @property
    def event_sources(self) -> Path:
        return self.sys / "bus/event_source/devices"

    @property
    def damon(self) -> Path:
        return self.sys / "kernel/mm/damon/admin/kdamonds"

    @property
    def config(self) -> Path:
        return self.sys / "kernel/config"

    @property
    def modules(self) -> Path:
        return self.sys / "module"

    @property
    def trace_events(self) -> Path:
        return self.sys / "kernel/tracing/events"
