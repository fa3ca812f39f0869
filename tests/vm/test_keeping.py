"""Heat over a restart of tierd.service, in a whole server: systemd keeps it, and placing is sooner done."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.vm import scenario
from tests.vm.guest import Guest
from tests.vm.scenario import CASES, POLICY, Load
from tests.vm.test_service import Service
from tierd.service import events

pytestmark = [pytest.mark.one_kernel, pytest.mark.slow, pytest.mark.accessed_bits]

LEARNING = 60
MOST = 180
SCORE = 0.8
"""Of the ideal placement, which counts as converged: between where the runs begin and where they end."""
TAKEN = re.compile(
    r"heat of (\d+) pages in 1 process, (\d+) seconds old, is taken over from the run before$"
)


@pytest.fixture(scope="module")
def service(own_guest: Guest) -> Iterator[Service]:
    scenario.make_memory(own_guest, own_guest.region())
    yield Service(own_guest)
    scenario.stop_tierd(own_guest)


@pytest.fixture
def load(service: Service) -> Iterator[Load]:
    running = Load(service.guest, CASES["A"], report_every=1)
    running.start()
    yield running
    running.stop()


def learn(service: Service) -> None:
    """tierd has watched the load, moved nothing, and is to place it when it is started again."""
    guest = service.guest
    scenario.stop_tierd(guest)
    guest.write(POLICY, scenario.policy(guest.region(), mode="observe"))
    scenario.start_tierd(guest)
    time.sleep(LEARNING)
    guest.write(POLICY, scenario.policy(guest.region()))


def seconds(service: Service, load: Load) -> float:
    """From its start to the first report of a placement of SCORE."""
    ready = int(service.show("ActiveEnterTimestampMonotonic")) / 1e6
    until = time.monotonic() + MOST
    while time.monotonic() < until:
        for sample in load.samples():
            if sample.time > ready and sample.score >= SCORE:
                return sample.time - ready
        time.sleep(1)
    return MOST


def taken(service: Service) -> list[str]:
    return [line for entry in service.journal(events.NOTED) if TAKEN.match(line := str(entry["MESSAGE"]))]


def test_a_restart_goes_on_by_what_was_known(service: Service, load: Load) -> None:
    learn(service)
    stored = service.show("NFileDescriptorStore")
    service.guest.run("systemctl restart tierd", timeout=300)
    after_restart = seconds(service, load)
    (line,) = taken(service)
    found = TAKEN.match(line)
    assert found is not None and int(found[1]) > 10_000 and int(found[2]) < 60, line
    assert service.show("NFileDescriptorStore") == stored, "out of the store again"
    service.guest.run("systemctl stop tierd", timeout=120)
    assert service.show("NFileDescriptorStore") == "0"
    load.stop()

    load.start()
    learn(service)
    service.guest.run("systemctl stop tierd; systemctl start tierd", timeout=300)
    after_start = seconds(service, load)
    assert taken(service) == [line], "nothing was left by a stop"
    print(
        f"{SCORE} of ideal {after_restart:.0f} s after a restart, {after_start:.0f} s after a start; {line}"
    )
    assert after_restart < after_start


def test_a_crash_leaves_nothing(service: Service, load: Load) -> None:
    learn(service)
    before = taken(service)
    service.guest.run("systemctl kill --kill-whom=main --signal=KILL tierd")
    service.guest.wait_for(
        "test $(systemctl show -P NRestarts tierd) -ge 1 && systemctl is-active tierd", timeout=240
    )
    time.sleep(5)
    assert taken(service) == before
