"""What is measured: processes that know their own ideal placement, and two real servers with their own
clients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tests.bench import servers
from tests.vm import image, machine
from tests.vm.guest import Guest
from tests.vm.scenario import CASES, HUGE_CASES, Case, Load, Sample

DRAM = machine.Machine().dram
"""MiB of the server that everything is measured on."""
REPORT_SECONDS = 5.0
SCAN_SPEED = 200
"""MiB/s: the whole memory every 12 s."""


@dataclass(frozen=True)
class Point:
    """One value of a series. time: seconds on the guest's monotonic clock. ideal: the best possible value, 0
    where nobody knows it."""

    time: float
    value: float
    ideal: float = 0.0


class Running(Protocol):
    """A workload in a guest, as load.service; started when it is made."""

    def stop(self) -> tuple[list[Point], list[Sample]]:
        """End it; returns the whole series, and the reports it was made of where the workload makes any."""


@dataclass(frozen=True)
class Workload:
    """start: starts it and returns when its memory is in place. unit: of its value: "hit" is the share of
    accesses that find DRAM. recipe: the image that it needs."""

    name: str
    title: str
    start: Callable[[Guest], Running]
    unit: str = "hit"
    recipe: image.Recipe = image.RECIPE


@contextlib.contextmanager
def _ended_on_failure(guest: Guest) -> Iterator[None]:
    """What was begun must not stand in the way of the next workload."""
    try:
        yield
    except BaseException:
        guest.run("systemctl stop client load; systemctl reset-failed client load", check=False)
        raise


class _Synthetic:
    def __init__(self, guest: Guest, case: Case) -> None:
        self._load = Load(guest, case, report_every=REPORT_SECONDS)
        with _ended_on_failure(guest):
            self._load.start()

    def stop(self) -> tuple[list[Point], list[Sample]]:
        samples = self._load.stop()
        return [Point(sample.time, sample.hit, sample.ideal) for sample in samples], samples


class _Server:
    def __init__(self, guest: Guest, server: servers.Server) -> None:
        self._server = server
        with _ended_on_failure(guest):
            server.start()

    def stop(self) -> tuple[list[Point], list[Sample]]:
        return [Point(time, requests) for time, requests in self._server.stop()], []


def synthetic(name: str, case: Case) -> Workload:
    """The workload of a case; also used by the table of the engine."""
    return Workload(name, case.title, lambda guest: _Synthetic(guest, case))


def more_hot(percent: int) -> Case:
    """A hot set of so many per cent of DRAM, in the memory of case A."""
    hot = DRAM * percent // 100
    says = f"hot set of {percent} % of DRAM"
    return Case("A", 64, extra=("--hot", str(hot)), says=says)


def phases(case: Case, seconds: float) -> Case:
    """The same with another hot set every so many seconds."""
    says = f"case {case.name}, another hot set every {seconds:g} s"
    return replace(case, extra=(*case.extra, "--phase", f"{seconds:g}"), says=says)


ZIPF = Case("A", 64, extra=("--zipf", "0.99"), says="Zipf 0.99 over clusters of 64 KiB")
SCAN = Case(
    "A",
    64,
    extra=("--scan", str(SCAN_SPEED)),
    says=f"case A while a scan reads everything at {SCAN_SPEED} MiB/s",
)


def _all() -> Sequence[Workload]:
    return (
        *(synthetic(name, case) for name, case in CASES.items()),
        *(synthetic(f"{name}-huge", case) for name, case in HUGE_CASES.items()),
        synthetic("zipf", ZIPF),
        synthetic("phase", phases(CASES["A"], 60)),
        synthetic("hot120", more_hot(120)),
        synthetic("scan", SCAN),
        Workload(
            "redis",
            "Redis, 1.5 GB of values, GETs of a sixth of them",
            lambda guest: _Server(guest, servers.Redis(guest)),
            "requests/s",
            servers.RECIPE,
        ),
        Workload(
            "postgresql",
            "PostgreSQL, pgbench, lookups with Zipf 1.1",
            lambda guest: _Server(guest, servers.PostgreSQL(guest)),
            "requests/s",
            servers.RECIPE,
        ),
    )


WORKLOADS = {workload.name: workload for workload in _all()}
