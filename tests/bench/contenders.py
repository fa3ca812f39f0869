"""Who is measured. A contender starts, is ready at a known time, and puts back every kernel setting that it
wrote. All of it happens in the guest."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.bench import damon
from tests.vm import host, scenario
from tests.vm.guest import Guest

BALANCING = "/proc/sys/kernel/numa_balancing"
DEMOTION = "/sys/kernel/mm/numa/demotion_enabled"
DAMON_STAT = "/sys/module/damon_stat/parameters/enabled"


@dataclass(frozen=True)
class Contender:
    """lacking: why it cannot run on a guest, empty when it can. running: runs it for the length of a `with`
    block; gives the time at which it was ready, in seconds on the guest's monotonic clock."""

    name: str
    says: str
    running: Callable[[Guest], AbstractContextManager[float]]
    lacking: Callable[[Guest], str] = lambda guest: ""


def guest_time(guest: Guest) -> float:
    """Now, on the guest's monotonic clock (a guest never sleeps, so that uptime is the same)."""
    return float(guest.output("cat /proc/uptime").split()[0])


@contextlib.contextmanager
def changed(guest: Guest, settings: Mapping[str, str]) -> Iterator[None]:
    """Kernel settings of the guest, in this order, for the length of a `with` block; put back in reverse.

    Raises HostError when one does not read as it did before.
    """
    before = {path: guest.output(["cat", path]) for path in settings}
    try:
        for path, value in settings.items():
            _write(guest, path, value)
        yield
    finally:
        for path, value in reversed(before.items()):
            _write(guest, path, value)
        left = [path for path, value in before.items() if guest.output(["cat", path]) != value]
        if left:
            raise host.HostError(f"not put back in the guest: {', '.join(left)}")


def _write(guest: Guest, path: str, value: str) -> None:
    guest.run(f"printf %s {shlex.quote(value)} > {shlex.quote(path)}")


@contextlib.contextmanager
def _none(guest: Guest) -> Iterator[float]:
    yield guest_time(guest)


@contextlib.contextmanager
def _kernel(guest: Guest) -> Iterator[float]:
    # demotion first: without it nothing makes room for what balancing wants to promote
    with changed(guest, {DEMOTION: "true", BALANCING: "2"}):
        yield guest_time(guest)


@contextlib.contextmanager
def _damon(guest: Guest) -> Iterator[float]:
    with changed(guest, {DAMON_STAT: "N"}):
        try:
            damon.start(guest)
            yield guest_time(guest)
        finally:
            damon.stop(guest)


@contextlib.contextmanager
def _tierd(guest: Guest) -> Iterator[float]:
    try:
        yield scenario.start_tierd(guest)
    finally:
        scenario.stop_tierd(guest)


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("none", "no tiering", _none),
        Contender("kernel", "numa_balancing=2 and demotion, everything else as it comes", _kernel),
        Contender("damon", "DAMON as damo's tiering script sets it", _damon, damon.lacking),
        Contender("tierd", "tierd with its default engine settings", _tierd),
    )
}
